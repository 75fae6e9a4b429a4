"""The leaderboard as one web page that needs no network: a pure function of what the other pages are made of."""
