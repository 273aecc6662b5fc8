"""What the dashboards show: rows of panels with their titles, units and expressions. Must not know how a panel looks.

`@` in an expression stands for the matchers of the selected workers, and `WORKERS` for `up` of those that answered within a
day: 0 for those that are down, whose own series are gone.
"""

UP_DOWN = {"0": "problem", "1": "well"}
RED_GREEN = [("red", None), ("green", 1)]
ZERO_IS_GOOD = [("green", None), ("red", 1)]


def _expand(expression):
    selected = 'job=~"$job",queue=~"$queue",instance=~"$instance"'
    workers = '(up{job=~"$job",instance=~"$instance"} and on (job, instance) last_over_time(ticketlog_build_info@[1d]))'
    expression = expression.replace("WORKERS", workers)
    # A process has the queue of its first route only.
    expression = expression.replace("{P}", '{job=~"$job",instance=~"$instance"}').replace("OF_QUEUE", "and on (job, instance) ticketlog_build_info@")
    return expression.replace("{@", "{" + selected).replace("@", "{" + selected + "}")


def _panel(kind, title, unit, description, *targets, **more):
    targets = [(_expand(expression), legend) for expression, legend in targets]
    return {"kind": kind, "title": title, "unit": unit, "description": description, "targets": targets, **more}


def graph(title, unit, description, *targets, **more):
    return _panel("timeseries", title, unit, description, *targets, **{"min": 0, **more})


def stat(title, unit, description, *expressions, **more):
    """Each expression is shown with its name, if it is a pair."""
    targets = [one if isinstance(one, tuple) else (one, "") for one in expressions]
    return _panel("stat", title, unit, description, *targets, **{"w": 4, "h": 4, **more})


def events(title, description, *targets, **more):
    """Counts in a time, which are whole numbers."""
    return graph(title, "short", description, *targets, **{"whole": True, **more})


def states(title, description, expression, legend, **more):
    more = {"mappings": UP_DOWN, "thresholds": RED_GREEN, **more}
    return _panel("state-timeline", title, "short", description, (expression, legend), **more)


def bars(title, unit, description, expression, legend, **more):
    return _panel("bargauge", title, unit, description, (expression, legend), **more)


def quantiles(title, description, histogram, *shares, by="", **more):
    expression = 'histogram_quantile(%s, sum by (le%s) (rate(%s_bucket@[$__rate_interval])))'
    more_labels, suffix = (", " + by, " {{%s}}" % by) if by else ("", "")
    targets = [(expression % (share, more_labels, histogram), "p%g%s" % (share * 100, suffix)) for share in shares]
    return graph(title, "s", description, *targets, **more)


LEDGER = (
    "sum(ticketlog_messages_received_total@) - sum(ticketlog_messages_settled_total@)"
    " - sum(ticketlog_messages_in_flight@)"
)

OVERVIEW = [
    ("Is it well?", [
        stat("Ready", "short", "Whether all workers answer, consume, reach MongoDB, and hold nothing. NO is red as soon as one worker is down.",
             "min(ticketlog_ready@ or on (job, instance) WORKERS * 0) or vector(0)", mappings={"0": "NO", "1": "yes"}, thresholds=RED_GREEN,
             runbooks=["TicketlogUnready", "TicketlogDown"]),
        stat("Workers down", "short", "Workers that do not answer Prometheus, of those that answered within a day.",
             ('count_values("up", sum(WORKERS)) * on () group_left (of) count_values("of", count(WORKERS)) * on () group_left () count(WORKERS == 0)'
              ' or count_values("up", sum(WORKERS)) * on () group_left (of) count_values("of", count(WORKERS)) * 0', "{{up}} of {{of}} up"),
             names=True, empty="none known", thresholds=ZERO_IS_GOOD, runbooks=["TicketlogDown", "TicketlogWorkerDown"]),
        stat("Alerts", "short", "Alerts of ticketlog that fire now; they are listed below.",
             'count(ALERTS{alertstate="firing",alertname=~"Ticketlog.*"}) or vector(0)', thresholds=ZERO_IS_GOOD),
        stat("Last stored", "s", "Time since a document was stored, by whichever worker. It goes on growing while all workers are down, and while nothing is published.",
             "time() - max(last_over_time(ticketlog_last_stored_timestamp_seconds@[1d]) > 0)", empty="never",
             thresholds=[("green", None), ("yellow", 300), ("red", 3600)], runbooks=["TicketlogIngestionStopped"]),
        stat("Fresh", "percentunit", "Share of the events of the last five minutes that were stored within 30 s of their own timestamp. The objective is 99 %.",
             'sum(rate(ticketlog_event_to_stored_seconds_bucket{@,le="30"}[5m])) / (sum(rate(ticketlog_event_to_stored_seconds_count@[5m])) > 0)', empty="no events",
             thresholds=[("red", None), ("yellow", 0.99), ("green", 0.995)], runbooks=["TicketlogFreshnessBurningFast"]),
        stat("Backlog", "short", "Messages ready in the queue.",
             'sum(max by (job, queue) (ticketlog_queue_messages{@,role="work"}))', empty="unknown", thresholds=[("green", None), ("yellow", 10000), ("red", 100000)],
             runbooks=["TicketlogBacklogGrowing"]),
        stat("Backlog empty in", "s", "At the rate at which it shrank in the last five minutes. 0: there is none.",
             'sum(max by (job, queue) (ticketlog_queue_messages{@,role="work"})) / (- sum(max by (job, queue) (deriv(ticketlog_queue_messages{@,role="work"}[5m]))) > 0.1)'
             ' or (sum(max by (job, queue) (ticketlog_queue_messages{@,role="work"})) > 0) * 0 - 1 or 0 * sum(max by (job, queue) (ticketlog_queue_messages{@,role="work"}))',
             mappings={"-1": ("not shrinking", "orange")}, empty="unknown",
             thresholds=[("green", None), ("yellow", 600), ("red", 3600)], runbooks=["TicketlogBacklogGrowing"]),
        stat("Dead letters", "short", "Messages in the dead-letter queue. `ticketlog dead stats` counts them by reason.",
             'sum(max by (job, queue) (ticketlog_queue_messages{@,role="dead_letter"}))', empty="unknown", thresholds=[("green", None), ("yellow", 1), ("red", 1000)],
             runbooks=["TicketlogDeadLettersUnattended"]),
        stat("Dead letters wait for", "s", "Since the dead-letter queue was last seen empty, as far back as a worker runs.",
             'time() - min(ticketlog_queue_filled_since_timestamp_seconds{@,role="dead_letter"} > 0) or 0 * sum(max by (job, queue) (ticketlog_queue_messages{@,role="dead_letter"}))', empty="unknown",
             thresholds=[("green", None), ("yellow", 3600), ("red", 86400)], runbooks=["TicketlogDeadLettersUnattended"]),
        stat("Replayed, 1 min", "short", "Replayed messages that got their outcome in the last minute. 0: no replay is in progress.",
             "round(sum(increase(ticketlog_replayed_messages_total@[1m])))", thresholds=[("green", None), ("blue", 1)]),
        stat("Out of balance", "short", "Received minus settled minus in flight. Any value but 0 is a bug.",
             LEDGER, empty="no worker", thresholds=ZERO_IS_GOOD, runbooks=["TicketlogLedgerOutOfBalance"]),
        stat("Requeues, 1 h", "short", "How often everything was requeued during an outage.",
             "round(sum(increase(ticketlog_requeues_total@[1h])))", empty="no worker", thresholds=[("green", None), ("yellow", 1)], runbooks=["TicketlogRequeueNear"]),
        states("Firing alerts", "Alerts of ticketlog over time. Each has a runbook of its name.",
               'max by (alertname) (ALERTS{alertstate="firing",alertname=~"Ticketlog.*"}) or label_replace(vector(0), "alertname", "none", "", "")',
               "{{alertname}}", w=12, h=6, mappings={"0": "none", "1": "fires"}, thresholds=ZERO_IS_GOOD),
        states("Components", "Each component over time, of all workers together. /readyz of the worker describes the problem; for the breaker it means open.",
               "min by (component) (ticketlog_component_up@)", "{{component}}", w=12, h=6,
               runbooks=["TicketlogBrokerUnavailable", "TicketlogStoreUnavailable", "TicketlogDeadLetteringUnavailable", "TicketlogBreakerOpen"]),
    ]),
    ("Messages", [
        graph("Outcomes", "suffix:/s", "Deliveries by outcome. Returned ones are delivered again.",
              ("sum by (outcome) (rate(ticketlog_messages_settled_total@[$__rate_interval]))", "{{outcome}}"), stack=True),
        graph("Backlog over time", "short", "Messages ready in the queue.",
              ('sum(max by (job, queue) (ticketlog_queue_messages{@,role="work"}))', "work"), whole=True,
              runbooks=["TicketlogBacklogGrowing", "TicketlogNoConsumer"]),
        quantiles("Event to stored", "From the timestamp in the event to its document being durable. The objective is 30 s for 99 %.",
                  "ticketlog_event_to_stored_seconds", 0.5, 0.99, 0.999,
                  thresholds=[("green", None), ("red", 30)], runbooks=["TicketlogFreshnessBurningFast"]),
    ]),
    ("Problems", [
        events("Dead letters by reason", "Confirmed dead letters in five minutes.",
               ("sum by (reason) (round(increase(ticketlog_dead_letters_total@[5m]))) > 0 or on () label_replace(vector(0), \"reason\", \"none\", \"\", \"\")", "{{reason}}"), stack=True,
               runbooks=["TicketlogDeadLetterRatio"]),
        events("Warnings and errors", "Lines logged in a minute, by level.",
               ('sum by (level) (round(increase(ticketlog_log_lines_total{@,level=~"warn|error"}[1m])))', "{{level}}")),
        graph("Oldest unsettled", "s", "Age of the oldest delivery without an ack, and the age at which everything is requeued (retry.requeue_after).",
              ("max(ticketlog_oldest_unsettled_age_seconds@)", "oldest"), ("min(ticketlog_requeue_after_seconds@)", "requeue"),
              runbooks=["TicketlogRequeueNear"]),
    ]),
]

PIPELINE = [
    ("Where the time goes", [
        graph("The loop", "percentunit", "Share of the session loop's time, by activity. Mostly `decoding`: the processor is the limit; `awaiting_writer`: MongoDB is; `idle`: no messages arrive.",
              ("sum by (activity) (rate(ticketlog_loop_seconds_sum@[$__rate_interval])) / scalar(count(ticketlog_build_info@))", "{{activity}}"),
              stack=True, w=12),
        graph("Processor", "percentunit", "Cores used by each worker, over five minutes, because the metric has whole seconds.",
              ("rate(process_cpu_seconds_total{P}[5m]) OF_QUEUE", "{{instance}}"), w=12),
        quantiles("Writes", "Duration of insert commands, by outcome.", "ticketlog_store_write_duration_seconds", 0.5, 0.99, by="outcome"),
        graph("Writes at a time", "short", "Batches being written, at most write.concurrency for each worker.",
              ("sum(ticketlog_store_writes_in_flight@)", "in flight")),
        graph("Pool", "short", "Connections to MongoDB.", ("sum by (state) (ticketlog_store_connections@)", "{{state}}")),
    ]),
    ("Batches", [
        graph("Events in a batch", "short", "Mean and 90th percentile; batch.max_events is the most.",
              ("sum(rate(ticketlog_batch_events_sum@[$__rate_interval])) / sum(rate(ticketlog_batch_events_count@[$__rate_interval]))", "mean"),
              ("histogram_quantile(0.9, sum by (le) (rate(ticketlog_batch_events_bucket@[$__rate_interval])))", "p90")),
        graph("Bytes in a batch", "bytes", "Mean size of the documents of a batch.",
              ("sum(rate(ticketlog_batch_bytes_sum@[$__rate_interval])) / sum(rate(ticketlog_batch_bytes_count@[$__rate_interval]))", "mean")),
        graph("Causes of closing", "suffix:/s", "What closed the batches. `idle` and `linger`: little traffic; `events` and `bytes`: full batches; `prefetch`: no further event could arrive.",
              ("sum by (cause) (rate(ticketlog_batch_flushes_total@[$__rate_interval]))", "{{cause}}"), stack=True),
    ]),
    ("Deliveries", [
        graph("Received", "suffix:/s", "Deliveries a second. Redelivered ones may have been delivered before, perhaps to another worker.",
              ('sum(rate(ticketlog_messages_received_total{@,redelivered="false"}[$__rate_interval]))', "new"),
              ('sum(rate(ticketlog_messages_received_total{@,redelivered="true"}[$__rate_interval]))', "redelivered"), stack=True),
        quantiles("Publish to stored", "From the AMQP timestamp (whole seconds) to the document being durable.",
                  "ticketlog_publish_to_stored_seconds", 0.5, 0.99),
        graph("Duplicates", "suffix:/s", "Deliveries whose document was stored already.",
              ('sum(rate(ticketlog_messages_settled_total{@,outcome="duplicate"}[$__rate_interval]))', "duplicate")),
    ]),
    ("In flight", [
        graph("Messages", "short", "Deliveries without an outcome, decoded events that wait for a writer, and deliveries without an ack.",
              ("sum(ticketlog_messages_in_flight@)", "in flight"), ("sum(ticketlog_batch_events_waiting@)", "waiting for a writer"),
              ("sum(ticketlog_deliveries_unacked@)", "unacknowledged")),
        graph("Prefetch used", "percentunit", "Unacknowledged deliveries as a share of the prefetch. At 1 RabbitMQ waits for the worker.",
              ("ticketlog_deliveries_unacked@ / (ticketlog_prefetch@ > 0)", "{{instance}} {{queue}}")),
        graph("Bytes", "bytes", "Messages and documents in flight (bounded by broker.prefetch_bytes), and the memory of the process.",
              ("sum(ticketlog_message_bytes_in_flight@)", "in flight"), ("sum(process_resident_memory_bytes{P} OF_QUEUE)", "resident")),
        graph("Bytes received", "Bps", "Bodies of deliveries.",
              ("sum(rate(ticketlog_messages_received_bytes_total@[$__rate_interval]))", "received")),
    ]),
]

DEAD_LETTERS = [
    ("Now", [
        stat("Waiting", "short", "Messages in the dead-letter queue.", 'sum(max by (job, queue) (ticketlog_queue_messages{@,role="dead_letter"}))',
             thresholds=[("green", None), ("yellow", 1), ("red", 1000)], w=3, runbooks=["TicketlogDeadLettersUnattended"]),
        stat("Removable", "short", "Queues of dead letters from which a policy of RabbitMQ can delete messages; no value while policies are unknown.",
             "sum(max by (job, queue, role) (ticketlog_queue_removes_messages@))", thresholds=ZERO_IS_GOOD, w=3, runbooks=["TicketlogDeadLettersRemovable"]),
        stat("Parked", "short", "Messages in the parked queue.", 'sum(max by (job, queue) (ticketlog_queue_messages{@,role="parked"}))', w=3),
        stat("Breaker", "short", "Open: MongoDB rejects nearly all events, and they are held instead of dead-lettered.",
             "max(ticketlog_breaker_open@)", mappings={"0": "closed", "1": "OPEN"}, thresholds=ZERO_IS_GOOD,
             w=4, runbooks=["TicketlogBreakerOpen"]),
        stat("Share, 1 h", "percentunit", "Dead-lettered messages as a share of all settled ones, without returned ones.",
             'sum(increase(ticketlog_messages_settled_total{@,outcome="dead_lettered"}[1h])) / sum(increase(ticketlog_messages_settled_total{@,outcome!="returned"}[1h]))',
             thresholds=[("green", None), ("yellow", 0.001), ("red", 0.05)], w=3, runbooks=["TicketlogDeadLetterRatio"]),
        stat("Not published yet", "short", "Rejected messages whose dead letter is not confirmed yet, and held events.", "sum(ticketlog_dead_letters_waiting@)",
             thresholds=[("green", None), ("yellow", 1), ("red", 100)], w=3, runbooks=["TicketlogDeadLetteringUnavailable"]),
        stat("New in 24 h", "short", "Confirmed dead letters in a day.", "round(sum(increase(ticketlog_dead_letters_total@[24h])))", w=3),
    ]),
    ("Reasons", [
        events("By reason", "Confirmed dead letters in five minutes.",
              ("sum by (reason) (round(increase(ticketlog_dead_letters_total@[5m]))) > 0 or on () label_replace(vector(0), \"reason\", \"none\", \"\", \"\")", "{{reason}}"), stack=True, w=24,
              runbooks=["TicketlogDeadLetterRatio"]),
        bars("By publisher", "short", "Since the start of each worker, by app_id, or else user_id, of the publisher.",
             "sort_desc(sum by (publisher) (ticketlog_dead_letters_by_publisher_total@) > 0) or on () label_replace(vector(0), \"publisher\", \"none\", \"\", \"\")", "{{publisher}}", w=8),
        events("New causes", "Causes that a worker saw for the first time since its start, in five minutes. The log names them.",
              ("sum by (instance) (round(increase(ticketlog_dead_letter_causes_total@[5m])))", "{{instance}}"), w=8, runbooks=["TicketlogNewDeadLetterCause"]),
        bars("Since the start, by reason", "short", "Since the start of each worker. Reasons that did not occur are left out.",
             "sort_desc(sum by (reason) (ticketlog_dead_letters_total@) > 0) or on () label_replace(vector(0), \"reason\", \"none\", \"\", \"\")", "{{reason}}", w=8),
    ]),
    ("Stored, and probably wrong", [
        events("Suspect events", "Stored events that are probably mistakes of their publisher, in five minutes, by what is found in them (docs/publish/findings.md).",
              ("sum by (kind) (round(increase(ticketlog_suspect_events_total@[5m]))) > 0 or on () label_replace(vector(0), \"kind\", \"none\", \"\", \"\")", "{{kind}}"), stack=True, w=16,
              runbooks=["TicketlogSuspectEvents"]),
        bars("Suspect events by publisher", "short", "Since the start of each worker, by app_id, or else user_id, of the publisher, without missing app_ids and identities.",
             "sort_desc(sum by (publisher, kind) (ticketlog_suspect_events_total{@,kind!~\"no_app_id|no_identity\"}) > 0) or on () label_replace(vector(0), \"publisher\", \"none\", \"\", \"\")", "{{publisher}} {{kind}}", w=8),
    ]),
    ("Publishing dead letters", [
        graph("Failures", "suffix:/s", "Dead letters that could not be published, by cause. They are retried; the original messages stay unacknowledged.",
              ("sum by (cause) (rate(ticketlog_dead_letter_publish_failures_total@[$__rate_interval]))", "{{cause}}"), w=6,
              runbooks=["TicketlogDeadLetteringUnavailable"]),
        graph("Queues", "short", "Messages ready in the dead-letter queue and the parked queue, without those that a running `ticketlog dead` holds.",
              ('sum by (role) (max by (job, queue, role) (ticketlog_queue_messages{@,role=~"dead_letter|parked"}))', "{{role}}"), w=6),
        events("Publishers opened", "Connections opened for publishing dead letters, in five minutes.",
              ("sum(round(increase(ticketlog_publishers_opened_total@[5m])))", "opened"), w=6),
        events("Receipts", "Receipts to publishers in five minutes: sent, or dropped because RabbitMQ was slow or refused them or too many came at once. Without dead_letter.receipts there are none.",
              ("sum by (outcome) (round(increase(ticketlog_receipts_total@[5m])))", "{{outcome}}"), w=6),
    ]),
    ("Replays", [
        events("By outcome", "Replayed messages in five minutes. Those still rejected are dead letters again.",
              ("sum by (outcome) (round(increase(ticketlog_replayed_messages_total@[5m])))", "{{outcome}}"), stack=True, w=16),
        bars("Since the start", "short", "Replayed messages by outcome, since the start of each worker.",
             "sum by (outcome) (ticketlog_replayed_messages_total@)", "{{outcome}}"),
    ]),
]

DEPENDENCIES = [
    ("State", [
        states("By worker", "Each component of each worker over time. /readyz describes the problem; for the breaker it means open.",
               "ticketlog_component_up@", "{{instance}} {{queue}} {{component}}", w=24, h=7, runbooks=["TicketlogUnready"]),
    ]),
    ("RabbitMQ", [
        events("Ends of sessions", "In five minutes, by cause. `consumer_cancelled`: the queue was deleted or its leader moved; `closed`: RabbitMQ closed the channel or the connection.",
              ("sum by (cause) (round(increase(ticketlog_session_ends_total@[5m]))) > 0 or on () label_replace(vector(0), \"cause\", \"none\", \"\", \"\")", "{{cause}}"), runbooks=["TicketlogSessionFlapping"]),
        events("Sessions opened", "In five minutes, by worker.", ("sum by (instance) (round(increase(ticketlog_sessions_opened_total@[5m])))", "{{instance}}")),
        events("Requeues", "How often everything was requeued during an outage, in an hour.",
              ("sum(round(increase(ticketlog_requeues_total@[1h])))", "requeues"), runbooks=["TicketlogRequeueNear"]),
        graph("Queues", "short", "Messages ready in each queue, by passive declarations.", ("sum by (role) (max by (job, queue, role) (ticketlog_queue_messages@))", "{{role}}")),
        graph("Consumers", "short", "Consumers of each queue, of all workers together.", ("sum by (role) (max by (job, queue, role) (ticketlog_queue_consumers@))", "{{role}}"),
              runbooks=["TicketlogNoConsumer"]),
        graph("Prefetch", "short", "The prefetch in force. It grows while messages are small, and is 0 without a session.", ("ticketlog_prefetch@", "{{instance}} {{queue}}")),
    ]),
    ("MongoDB", [
        graph("Writes", "suffix:/s", "Insert commands by outcome. `partial`: MongoDB rejected some of the documents.",
              ("sum by (outcome) (rate(ticketlog_store_write_duration_seconds_count@[$__rate_interval]))", "{{outcome}}"), stack=True,
              runbooks=["TicketlogStoreUnavailable"]),
        events("Retries", "Inserts that will be retried, in five minutes, by kind of failure.",
              ("sum by (kind) (round(increase(ticketlog_store_retries_total@[5m]))) > 0 or on () label_replace(vector(0), \"kind\", \"none\", \"\", \"\")", "{{kind}}"), runbooks=["TicketlogStoreUnavailable"]),
        graph("Clocks", "s", "How far MongoDB's clock is ahead of the worker's, and the largest of such differences of events of the last minute.",
              ("max by (against) (ticketlog_clock_skew_seconds@)", "{{against}}"), min=None, runbooks=["TicketlogClockSkew"]),
    ]),
    ("The process", [
        graph("Memory", "bytes", "Resident memory of each worker.", ("process_resident_memory_bytes{P} OF_QUEUE", "{{instance}}")),
        graph("File descriptors", "short", "Open file descriptors, and the limit.", ("process_open_fds{P} OF_QUEUE", "{{instance}}"), ("min(process_max_fds{P} OF_QUEUE)", "limit")),
        graph("Uptime", "s", "Since the start of the process.", ("(time() - process_start_time_seconds{P}) OF_QUEUE", "{{instance}}"),
              runbooks=["TicketlogRestarting"]),
        graph("Threads", "short", "Threads of each worker.", ("process_threads{P} OF_QUEUE", "{{instance}}")),
        events("Log lines", "Lines logged in a minute, by level, and lines lost because standard error was not read fast enough; spans of traces that were lost.",
              ("sum by (level) (round(increase(ticketlog_log_lines_total@[1m])))", "{{level}}"),
              ("sum(round(increase(ticketlog_log_lines_lost_total@[1m])))", "lost"),
              ('sum(round(increase(ticketlog_spans_total{@,outcome!="exported"}[1m])))', "spans lost")),
        graph("Versions", "short", "Workers by version.", ("count by (version) (max by (job, instance, version) (ticketlog_build_info@))", "{{version}}")),
    ]),
]  # fmt: skip

DASHBOARDS = {
    "overview": ("ticketlog: overview", "State of the workers, messages in and out, freshness.", OVERVIEW),
    "pipeline": ("ticketlog: pipeline", "Where the time goes, batches, messages in flight.", PIPELINE),
    "dead-letters": ("ticketlog: dead letters", "How many there are, for which reasons, and the outcomes of replays.", DEAD_LETTERS),
    "dependencies": ("ticketlog: dependencies", "RabbitMQ, MongoDB and the process.", DEPENDENCIES),
}
