"""The classroom: lessons from their source, checks of exercises, quizzes."""
