"""Recommenders for people who train with fastai: from a table of ratings to measured, explained recommendations

recfast trains recommenders in fastai's manner (`dls`, `Learner`, `fit_one_cycle`) and answers in the ids of your own table. A program written for `fastai.collab` runs with its import line changed. A session:

```python
from recfast.all import *
ratings = movie_night() # or your own frame: user_id, item_id, rating, timestamp (other names by user_name= ...)
dls = CollabDataLoaders.from_df(ratings, item_name='title', valid_pct=0.2, seed=42)
learn = collab_learner(dls, arch='auto', budget=10) # chooses models; collab_learner(dls, 50, y_range=(0, 5.5)) is fastai's
learn.fit(1)                             # fit_one_cycle(5, 5e-3, wd=0.1) for a model that is named
learn.evaluate(k=10)                     # metrics, with the protocol they were measured under
learn.recommend([196, 22], k=10)         # user_id, item_id, score, rank; history={item: rating} for somebody new
rec = load_bundle(learn.save_bundle('movies.recfast')) # the same answers without data or training code
```

- Data: `CollabDataLoaders.from_df`, `from_csv`, `from_parquet`, `from_wide` (ratings), `implicit_from_df` (clicks), `rows_from_df` (AutoRec), `sequences_from_df` (next item). `splits=` takes a pair of position lists: `user_split`, `item_split`, `leave_last_out`, `global_time_split`, `k_fold`.
- Models: `collab_learner(dls, arch='auto')` tries what suits the table (`learn.choice`) and keeps a rater and a ranker; `arch=` names one: `DotProductBias` (default), `DotProduct`, `EmbeddingNN`, `GMF`, `MLP`, `NeuMF`, `AutoRec`, `NextItem`, `SASRec`; solved, by `fit(1)`: `Popularity`, `ItemKNN`, `EASE`, `IALS`; or any `Module` with `forward(x)`, `x:[B,2]`.
- Losses: `loss_func=BPRLoss()`, `SoftmaxLoss()`, `BCE()` ... To rank well, train on what was chosen, not on stars.
- Verbs of a learner: `recommend`, `predict`, `similar_items`, `explain`, `evaluate`, `item_bias`, `item_factors`, `plot_factors`, `plot_bias`, `fill_wide`, `save_bundle`, `export_onnx`. Beside them: `compare`, `tune`, `mmr`, `calibrate`, `blend`.
- From a shell: `recfast quickstart | train | evaluate | recommend | similar | info | export | serve`.
- Ids that no training row has raise `UnknownIdError`; a table that cannot be used raises `RatingsError`. `recommend` leaves out what the user has seen; `evaluate` ranks every trained item.

Modules:

- `recfast.ab`: What came of a service's lists, in a shell: arms beside each other, events as a table to train on, people who want to be forgotten
- `recfast.ann`: The best of millions of items without scoring each: a graph of neighbours, and how much of the exact list it finds
- `recfast.arms`: Which of two models people do more with: the same person always gets the same one, and a difference comes with its interval
- `recfast.bundle`: A trained recommender as a folder of plain files
- `recfast.by_history`: What people get who are told about, measured as they are served
- `recfast.callbacks`: Ranking metrics after every epoch, and models that are solved in place of one
- `recfast.candidates`: Who stands in the list
- `recfast.choice`: Which model for this table: tried on rows held out from training, then trained on all of them
- `recfast.choices`: How likely a choice is, beside all else that could have been taken
- `recfast.cli`: recfast from a shell: one command trains, measures, recommends and shows
- `recfast.collab`: A `Learner` that recommends
- `recfast.combined`: What answers for a model made of others: each part by its own scorer
- `recfast.compare`: Several models on the same users, with intervals
- `recfast.compiled`: A whole epoch in one call, for models that are a dot product
- `recfast.contest`: Several models on one table: each at its best, all measured once on the same rows
- `recfast.core`: The conventions every page of recfast follows, and the errors it raises
- `recfast.daily`: What a shop does every day in a shell: take new rows into a bundle, see how far they are from those of training, and forget people
- `recfast.data.batches`: Batches of rows, in an order that a seed and an epoch fix
- `recfast.data.catalogues`: What films and products are and who the people are, beside the tables of who met what
- `recfast.data.coded`: Ids as small numbers, worked out once for a table
- `recfast.data.columns`: Which column is the user, the item, the rating, the time, and whether it holds what it should
- `recfast.data.context`: What a row says beside who and what: the hour, the device, the shop; columns of the rating itself
- `recfast.data.datasets`: Data sets that others compare on: MovieLens, MovieTweetings and Amazon Beauty, with their rows in the order of the files
- `recfast.data.encoding`: A column that describes things as numbers: categories, lists of values, words
- `recfast.data.feature_files`: Tables of features as plain tensors and JSON, and back
- `recfast.data.feature_table`: Features as rows of numbers, in the order of the ids: what models read
- `recfast.data.features`: What an item is and who a user is: a table of them, as rows of numbers beside the ids
- `recfast.data.found`: What a builder found in a table, counted when somebody asks
- `recfast.data.frames`: A frame of any kind as pandas, ids without loss, and frames out
- `recfast.data.guessing`: Which column of a table of items is a category, which a quantity, which several values, and which only a name
- `recfast.data.implicit`: Batches from clicks: what happened, beside what did not
- `recfast.data.interactions`: The table as integer rows: who met what, with which rating, and when
- `recfast.data.item_columns`: What a table says of items, as people read it: which of them are in stock, cost less than 20, and are called what
- `recfast.data.later`: Rows that came after the training: which of them are new, and what counts as known though nobody learned from it
- `recfast.data.loaders`: From a table of ratings to the `DataLoaders` a `Learner` trains on
- `recfast.data.made`: Two tables that nobody measured: one to see through, and films that never were
- `recfast.data.new_items`: Items that are new: all rows of some of them held out
- `recfast.data.quantities`: A quantity as a number among others, and as hats for linear maps; a vector as many of them
- `recfast.data.ratings`: A table of ratings, checked before anything learns from it, and its rows in the order of time
- `recfast.data.recut`: Loaders of rows that other loaders hold: the same ids, times and weights, cut once more
- `recfast.data.row_groups`: Ratings of a parquet file that is larger than memory: read in pieces, kept as codes in a folder
- `recfast.data.rows`: Batches of whole users or whole items, dense for the moment they are needed
- `recfast.data.sampling`: Negatives: the items a user did not choose
- `recfast.data.sequences`: What comes next: histories in order, cut into windows
- `recfast.data.sessions`: Where one visit ends and the next begins
- `recfast.data.split`: Which rows train, which rows test
- `recfast.data.vocab`: Ids to rows and back, and ids from text and JSON
- `recfast.data.weights`: What a row weighs: a column of weights, kinds of events, and how long ago it was
- `recfast.data.windows`: Histories cut anew in every epoch, in batches of windows of about one length
- `recfast.dealt`: Several models behind one address: each person is answered by one of them, the same one every time
- `recfast.described`: Somebody new by what they are: an age, an occupation, and nothing else
- `recfast.distributed`: Several processes, one training: the batches, the order and the loss of one
- `recfast.drift`: How far new rows are from those of training: who and what is unknown, what became popular, and whether lists still find it
- `recfast.ensemble`: Recommenders made of trained learners: a rater with a ranker, a mean, a blend
- `recfast.evaluate`: A number with the protocol it was measured under
- `recfast.evaluation`: What a measurement is: metrics, how sure they are, and how they were measured
- `recfast.events`: What a service showed and what people did: a folder of tables, without names
- `recfast.explain`: What each item of a history adds to a score
- `recfast.explore`: All items on one map that one can walk: a file of its own, with search, neighbours, colours and a history laid over it
- `recfast.export`: Score, mask and top-k as one graph, for a program without Python
- `recfast.fast`: A batch loop without the overhead that dominates small models
- `recfast.feature_report`: What features are worth: for items that nobody met, for the others, and value by value
- `recfast.files`: Tables in, lists out: csv, tsv and parquet, in bounded memory
- `recfast.flat_losses`: Losses of one number at a time: ratings, labels, classes, and rows with holes
- `recfast.forget`: People who want to be forgotten: a recommender without their rows, their row and their id
- `recfast.gibbs`: Vectors of users and items drawn row by row, each given all the others
- `recfast.gibbs_features`: Features drawn with the vectors: what all thrillers share, and all nurses
- `recfast.given_lists`: Lists from anywhere, measured like those of a model
- `recfast.groups`: Who belongs together, and what was measured of each group
- `recfast.growing`: Tomorrow's rows: a learner on a new table that begins where an older one ended, row by row by id
- `recfast.guard`: How much features may add: chosen on a tenth of the training rows, so that they do no harm
- `recfast.histories`: One history of someone, from any form it comes in
- `recfast.interpret`: What a model has learned, as tables and maps
- `recfast.joint`: A batch or a table of several processes: the part of this one, and what all of them make of it
- `recfast.journal`: Records that outlive the process that wrote them: a file that is only added to, each record with its length and its checksum
- `recfast.judged`: What was tried, measured on rows held out from training, and which of it is taken: better beyond chance, or else simpler
- `recfast.kernels`: An epoch of small batches as loops over numbers, which numba compiles
- `recfast.keys`: Names that tell nothing: people under a keyed hash, requests under a signature
- `recfast.latent`: The number behind a rating: drawn, given what was rated
- `recfast.learner`: `collab_learner` as you know it, with recommendations at its end and a faster loop inside
- `recfast.levels`: Thresholds that are learned with the tables, as machine code
- `recfast.likelihood`: How likely what somebody told is, as each loss of training has it
- `recfast.lists`: Lists of all users as one grid, from which others are chosen
- `recfast.losses`: What a model is asked to make small
- `recfast.machine`: Loops over numbers as machine code, kept among the user's caches
- `recfast.meters`: What a service counts of its requests, for Prometheus
- `recfast.metrics`: What a metric measures, with its formula and its denominator
- `recfast.models.autorec`: Read all that is known of a user (or an item), pass it through a narrow place, read off what is missing
- `recfast.models.base`: What recfast asks of a model: a forward on pairs, and nothing else
- `recfast.models.bayesian`: SVD++ on both sides as a distribution: the mean of what hundreds of likely models say
- `recfast.models.bert`: A gap in a history, guessed from both sides: BERT4Rec
- `recfast.models.defaults`: What a model is trained with where nothing is named
- `recfast.models.dot`: A rating as the dot product of a user's vector and an item's, plus two biases
- `recfast.models.ease`: EASE: every item from all the others, by one ridge regression, and three powers that say how much the crowd counts
- `recfast.models.ensemble`: Several models as one: the mean of what they say, or a weighted sum of what they say on one scale
- `recfast.models.fm`: Factorisation machine: ids and features are all the same, and every two of them say something together
- `recfast.models.foldin`: A row for someone (or something) new, under the loss of training
- `recfast.models.graph`: Over the graph of who met what: walks of two steps, and vectors that take after their neighbours
- `recfast.models.gru`: One state that every item updates: GRU4Rec
- `recfast.models.hybrid`: A dot product that knows what things are: features add to the vectors of items and of people
- `recfast.models.ials`: Implicit alternating least squares: factors for clicks, solved by turns
- `recfast.models.ids`: Weights never part from the ids they belong to
- `recfast.models.knn`: Items near to those you had: similarities of columns, the nearest kept
- `recfast.models.linear`: Solved, not trained: popularity, and what models that score from a history share
- `recfast.models.maps`: From the scores of known items to those of others by what both are, and to which level these belong
- `recfast.models.ncf`: Let a network decide how a user and an item go together
- `recfast.models.nearby`: Pairs met near in time: what a person met at one sitting says more about each other than what lies years apart
- `recfast.models.params`: The same model with no Embedding class: matrices of parameters, indexed with brackets
- `recfast.models.parts`: Models made of trained ones, and the one of them that rates and ranks
- `recfast.models.prior`: What those who were trained say of the next one, before and after it is known which items they tell of
- `recfast.models.rules`: What follows what: counts of pairs some places apart, and a score that forgets with every place
- `recfast.models.sequence`: What this person takes next, from what they took before
- `recfast.models.sharded`: Tables whose rows are dealt out to several processes
- `recfast.models.slim`: Neighbours whose weights are learned: every item from a few others
- `recfast.models.spec`: How to build a model again: its name and what it was called with
- `recfast.models.spectral`: A filter over the spectrum of who met what: the broad tastes kept, the noise let down
- `recfast.models.start`: Item vectors that begin where the counts of neighbours put them
- `recfast.models.sums`: Sums of rows of a table: a sparse matrix times it, with gradients
- `recfast.models.svdpp`: SVD++ on both sides: a person is also what they rated, an item is also who rated it
- `recfast.models.tail`: Scores for items without a rating, from what they are: a tail behind any trained model
- `recfast.models.towers`: Two networks whose outputs meet in a dot product: one reads what an item is, the other who a person is
- `recfast.models.two_speed`: The next item by one ridge regression on what was met, remembered for a short and for a long time
- `recfast.models.update`: What more rows change in a trained model: solved again where that is counting or algebra, else left as it is
- `recfast.models.vae`: What someone may like as a distribution: a variational autoencoder of clicks
- `recfast.models.zoo`: Every model that comes with recfast, imported once
- `recfast.more_items`: Items that came after the training: a recommender that knows them too, without training anew
- `recfast.more_ratings`: Rows that came after the training: a recommender that knows them and the people in them, without training anew
- `recfast.near_in_time`: What else a person rated at that moment: ratings that are near in time err together
- `recfast.next_losses`: A next-item loss that knows it has seen few of the items: gBCE
- `recfast.noted`: A service that writes down which lists it gave, and is told what people did with them
- `recfast.options`: What a shell is asked for: each option once, and settings as text
- `recfast.ordinal`: Ratings as ordered levels: a loss that learns where one star ends and the next begins
- `recfast.page_items`: What a page that is one file says of items: their titles, pictures and choices, and tables of numbers as text
- `recfast.rank_losses`: Losses that know how far down an item stands: WARP
- `recfast.ranked`: The best of everybody's candidates, and what they hold of what was to be found
- `recfast.ranking`: Scores in, the best k items out: masked, in chunks, ties always the same way
- `recfast.reasons`: What each feature of an item adds to a score
- `recfast.recipes`: Which models are worth trying on a table of this shape, and what each costs
- `recfast.recommend`: Lists for people the model knows and people it has never met
- `recfast.registry`: One name, one function and one direction for every metric
- `recfast.relevance`: What is to be found, and by whom
- `recfast.report`: From a table to a report: the two long commands of the shell and the page they leave
- `recfast.rerank`: After scoring: variety, balance, and several recommenders in one list
- `recfast.resampling`: How sure a mean over users is, and the difference of two
- `recfast.routes`: What may be asked of a recommender over HTTP, and what comes back
- `recfast.run_servers`: Trainings written down by MLflow or Weights & Biases, and read back from what lies on this disk
- `recfast.run_stores`: What a training is told by, event by event, and where it is written down: a file of JSON, or folders of TensorBoard
- `recfast.scale`: Lists for more people than one process serves in a night: on Ray, parquet to parquet
- `recfast.scorer`: What a trained model says of people it knows, of nobody, and of people it has never met
- `recfast.serve`: HTTP and a page over a bundle
- `recfast.service`: What a shell says to a service: serve a bundle, or a folder of them, and go back to the one before
- `recfast.share`: What a shell makes for others of a bundle: one page that recommends, and one that is a map
- `recfast.shell`: How recfast speaks in a terminal
- `recfast.softmax`: Cross-entropy over all items, a chunk of places at a time, with its gradients made on the way
- `recfast.static_page`: A recommender as one file: a page that opens from a disk, answers without a server and holds no row of anybody
- `recfast.steps`: What a step of the compiled loop is made of: the slope of a loss, the settings of the optimizer
- `recfast.stored`: The files of a bundle: in a folder or a zip, as bytes or as memory that several processes share
- `recfast.tables`: Files in, files out: csv, tsv and parquet, in bounded memory
- `recfast.testing`: Data with a known answer, and the contract every recommender signs
- `recfast.threads`: A large batch on several threads, its sums the same whatever their number
- `recfast.track`: A training written down as it goes, in the fast loop as well: settings, epochs, what it is worth and under which protocol
- `recfast.trackers`: Stop, slow down, keep the best: by the metric you name, the way it goes
- `recfast.train`: From a table to a measured model in one call
- `recfast.tune`: Learning rates, sizes and decays, chosen on rows that are not the test
- `recfast.watch`: A folder of bundles, served: a new model is taken between two requests, a damaged one is refused, and one goes back
- `recfast.worker`: Many requests, one thread, one model
- `recfast.workers`: One service of several processes: one address, one set of weights in memory, one set of figures"""

__version__ = "0.2.0"
