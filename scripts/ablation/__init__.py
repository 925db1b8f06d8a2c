"""Table 3: variations of one model, trained and scored alike, beside what the paper reports. See scripts/table3.py."""
