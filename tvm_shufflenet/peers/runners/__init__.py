"""Programs for the peers' own Pythons, each in its own process. Nothing else imports them."""
