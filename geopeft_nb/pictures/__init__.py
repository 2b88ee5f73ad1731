"""Pictures: what is drawn from arrays, and how it is shown with words beside it."""
