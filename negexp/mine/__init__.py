"""`negexp mine`: negatives as files that other trainers read, with a report of what was mined."""
