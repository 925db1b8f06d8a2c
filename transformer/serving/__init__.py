"""Models over HTTP: LibreTranslate's API, more as JSON, and a page to try them."""
