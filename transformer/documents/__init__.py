"""Documents: text, subtitles, web pages and Word files, translated with all that stands between their sentences."""
