"""report.html, the page that every run gets, and its charts."""
