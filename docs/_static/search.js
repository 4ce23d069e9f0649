// what a search shows of a page: its words, not the source of its formulas
document.addEventListener('DOMContentLoaded', () => {
    if (typeof Search === 'undefined') return
    const text = Search.htmlToText
    Search.htmlToText = (html, anchor) => text(html.replace(/<div class="math[^]*?<\/div>/g, '').replace(/\\[()]/g, ''), anchor)
})
