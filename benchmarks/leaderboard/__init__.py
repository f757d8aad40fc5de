"""The leaderboard: entries made of finished benches, checked, run again in part, and shown on pages."""
