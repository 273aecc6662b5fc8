"""What matches the JSON Schema of `ticketlog contract` would be stored: Python's jsonschema, and json, which reads NaN."""
import json
import sys

from jsonschema import Draft202012Validator

schema, events, outcomes = sys.argv[1:]
with open(schema) as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
matching = problems = 0
with open(events) as events, open(outcomes) as outcomes:
    for event, outcome in zip(events, outcomes, strict=True):
        if not validator.is_valid(json.loads(event)):
            continue
        matching += 1
        outcome = json.loads(outcome)
        if outcome["outcome"] != "stored":
            problems += 1
            print(event, "matches, but", outcome["reason"], outcome["detail"], file=sys.stderr)
print(f"Python: {matching} match, {problems} problems")
sys.exit(problems > 0 or matching == 0)
