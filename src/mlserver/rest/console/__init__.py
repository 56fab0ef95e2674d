"""The console: a page for browsers that shows what runs, with a form to run inference."""
