"""Showing what was made: the page of a run, event displays, the catalogue of anomalies.

What to use when: `page.write_report(run)` for the page, `display` for single crossings, `figures` for the plots that go
into slides.
"""
