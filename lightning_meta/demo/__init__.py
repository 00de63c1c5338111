"""The page on which one draws: its server, its pictures, its static form."""
