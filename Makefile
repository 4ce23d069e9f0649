.PHONY: docs
docs:  # the documentation site, into _docs; needs pip install -e ".[docs]"
	python docs/build.py
