"""What the dashboards show: rows of panels with their questions, units and expressions. Must not know how a panel looks.

`@` in an expression stands for the matchers of the chosen workers.
"""

UP_DOWN = {"0": "down", "1": "up"}
RED_GREEN = [("red", None), ("green", 1)]
ZERO_IS_GOOD = [("green", None), ("red", 1)]


def _expand(expression):
    chosen = 'job=~"$job",instance=~"$instance"'
    return expression.replace("{@", "{" + chosen).replace("@", "{" + chosen + "}")


def _panel(kind, title, unit, description, *targets, **more):
    targets = [(_expand(expression), legend) for expression, legend in targets]
    return {"kind": kind, "title": title, "unit": unit, "description": description, "targets": targets, **more}


def graph(title, unit, description, *targets, **more):
    return _panel("timeseries", title, unit, description, *targets, **{"min": 0, **more})


def stat(title, unit, description, expression, **more):
    return _panel("stat", title, unit, description, (expression, ""), **{"w": 4, "h": 5, **more})


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
        stat("Ready", "short", "Whether every chosen worker consumes, its store answers, and nothing is held.",
             "min(ticketlog_ready@)", mappings={"0": "NO", "1": "yes"}, thresholds=RED_GREEN,
             runbooks=["TicketlogUnready"]),
        stat("Fresh", "percentunit", "Share of events stored within 30 s of their own timestamp, over an hour. The objective is 99 %.",
             'sum(rate(ticketlog_event_to_stored_seconds_bucket{@,le="30"}[1h])) / sum(rate(ticketlog_event_to_stored_seconds_count@[1h]))',
             thresholds=[("red", None), ("yellow", 0.99), ("green", 0.995)], runbooks=["TicketlogFreshnessBurningFast"]),
        stat("Backlog", "short", "Messages that wait in the worker's queue.",
             'sum(max by (job) (ticketlog_queue_messages{@,queue="work"}))', thresholds=[("green", None), ("yellow", 10000), ("red", 100000)],
             runbooks=["TicketlogBacklogGrowing"]),
        stat("Dead letters waiting for a person", "short", "Messages in the dead-letter queue: look at them with `ticketlog dead stats`.",
             'sum(max by (job) (ticketlog_queue_messages{@,queue="dead_letter"}))', thresholds=[("green", None), ("yellow", 1), ("red", 1000)],
             runbooks=["TicketlogDeadLettersUnattended"]),
        stat("Out of balance", "short", "Received minus settled minus in flight: anything but 0 is a bug.",
             LEDGER, thresholds=ZERO_IS_GOOD, runbooks=["TicketlogLedgerOutOfBalance"]),
        stat("Workers", "short", "Workers that are scraped.", "count(ticketlog_build_info@)"),
        states("Dependencies", "Each part of the flow over time; /readyz of the worker says what is wrong, in words.",
               "min by (part) (ticketlog_dependency_up@)", "{{part}}", w=24, h=6,
               runbooks=["TicketlogBrokerUnavailable", "TicketlogStoreUnavailable", "TicketlogDeadLetteringUnavailable"]),
    ]),
    ("What goes in and out", [
        graph("Received", "cps", "Deliveries a second; redelivered ones came before, perhaps to another worker.",
              ("sum by (redelivered) (rate(ticketlog_messages_received_total@[$__rate_interval]))", "redelivered: {{redelivered}}"), stack=True),
        graph("Outcomes", "cps", "What became of the deliveries. Returned ones come again.",
              ("sum by (outcome) (rate(ticketlog_messages_settled_total@[$__rate_interval]))", "{{outcome}}"), stack=True),
        graph("Backlog and consumers", "short", "Messages ready in the worker's queue, and who consumes it.",
              ('sum(max by (job) (ticketlog_queue_messages{@,queue="work"}))', "messages"),
              ('sum(max by (job) (ticketlog_queue_consumers{@,queue="work"}))', "consumers"),
              runbooks=["TicketlogBacklogGrowing", "TicketlogNoConsumer"]),
        quantiles("From event to stored", "From the timestamp in the event to its document being durable; the objective is 30 s for 99 %.",
                  "ticketlog_event_to_stored_seconds", 0.5, 0.99, 0.999,
                  thresholds=[("green", None), ("red", 30)], runbooks=["TicketlogFreshnessBurningFast"]),
        quantiles("From publish to stored", "From the AMQP timestamp, which counts in whole seconds, to the document being durable.",
                  "ticketlog_publish_to_stored_seconds", 0.5, 0.99),
        graph("Oldest unsettled delivery", "s", "Its age, and the age at which everything is given back (retry.release_after).",
              ("max(ticketlog_oldest_unsettled_age_seconds@)", "oldest"), ("min(ticketlog_release_after_seconds@)", "release"),
              runbooks=["TicketlogReleaseNear"]),
    ]),
    ("What it says", [
        graph("Warnings and errors", "short", "Lines logged, by level, in a minute.",
              ('sum by (level) (increase(ticketlog_log_lines_total{@,level=~"warn|error"}[1m]))', "{{level}}")),
        graph("Dead letters by reason", "short", "Confirmed dead letters in five minutes.",
              ("sum by (reason) (increase(ticketlog_dead_letters_total@[5m])) > 0 or on() vector(0)", "{{reason}}"), stack=True,
              runbooks=["TicketlogDeadLetterRatio"]),
        graph("Seconds since something was stored", "s", "Of the worker that stored last. Counts up where nothing is published, too.",
              ("time() - max(ticketlog_last_stored_timestamp_seconds@ > 0)", "since")),
    ]),
]

PIPELINE = [
    ("Where the time goes", [
        graph("The loop", "percentunit", "Share of each worker's loop by activity. `decoding` near 1: the processor is the limit; `awaiting_writer`: the store is; `idle`: nothing comes.",
              ("sum by (activity) (rate(ticketlog_loop_seconds_sum@[$__rate_interval])) / scalar(count(ticketlog_build_info@))", "{{activity}}"),
              stack=True, w=12),
        graph("Processor", "percentunit", "Cores used by each worker, over five minutes: the process counts in whole seconds.",
              ("rate(process_cpu_seconds_total@[5m])", "{{instance}}"), w=12),
        quantiles("Writes", "Duration of writes to the store, by outcome.", "ticketlog_store_write_duration_seconds", 0.5, 0.99, by="outcome"),
        graph("Writes at a time", "short", "Batches being written, and how many may be at present: it follows how long writes take, within write.concurrency.",
              ("sum(ticketlog_store_writes_in_flight@)", "in flight"), ("sum(ticketlog_store_write_concurrency@)", "most")),
        graph("Pool", "short", "Connections to MongoDB.", ("sum by (state) (ticketlog_store_connections@)", "{{state}}")),
    ]),
    ("Batches", [
        graph("Events in a batch", "short", "On average, the largest tenth, and how many may be at present: fewer than batch.max_events where writes are slow or fail.",
              ("sum(rate(ticketlog_batch_events_sum@[$__rate_interval])) / sum(rate(ticketlog_batch_events_count@[$__rate_interval]))", "mean"),
              ("histogram_quantile(0.9, sum by (le) (rate(ticketlog_batch_events_bucket@[$__rate_interval])))", "p90"),
              ("max(ticketlog_batch_events_limit@)", "most")),
        graph("Bytes in a batch", "bytes", "On average.",
              ("sum(rate(ticketlog_batch_bytes_sum@[$__rate_interval])) / sum(rate(ticketlog_batch_bytes_count@[$__rate_interval]))", "mean")),
        graph("What closed them", "cps", "`linger`: little traffic; `events` and `bytes`: full batches.",
              ("sum by (cause) (rate(ticketlog_batch_flushes_total@[$__rate_interval]))", "{{cause}}"), stack=True),
    ]),
    ("In hand", [
        graph("Messages", "short", "Without an outcome; waiting for a writer; counted by the broker.",
              ("sum(ticketlog_messages_in_flight@)", "in flight"), ("sum(ticketlog_batch_events_waiting@)", "waiting for a writer"),
              ("sum(ticketlog_deliveries_unacked@)", "unacknowledged")),
        graph("Prefetch used", "percentunit", "Unacknowledged deliveries as a share of the prefetch. At 1 the broker waits for the worker.",
              ("ticketlog_deliveries_unacked@ / (ticketlog_prefetch@ > 0)", "{{instance}}")),
        graph("Bytes", "bytes", "Bodies and documents in hand (bounded by broker.prefetch_bytes), and the process's memory.",
              ("sum(ticketlog_message_bytes_in_flight@)", "in hand"), ("sum(process_resident_memory_bytes@)", "resident")),
        graph("Bytes received", "Bps", "Bodies of deliveries.",
              ("sum(rate(ticketlog_messages_received_bytes_total@[$__rate_interval]))", "received")),
        graph("Redelivered", "percentunit", "Share of deliveries that the broker may have delivered before.",
              ('sum(rate(ticketlog_messages_received_total{@,redelivered="true"}[$__rate_interval])) / (sum(rate(ticketlog_messages_received_total@[$__rate_interval])) > 0) or on() vector(0)', "redelivered")),
        graph("Duplicates", "cps", "Deliveries whose document was there already.",
              ('sum(rate(ticketlog_messages_settled_total{@,outcome="duplicate"}[$__rate_interval]))', "duplicates")),
    ]),
]

DEAD_LETTERS = [
    ("Now", [
        stat("Waiting for a person", "short", "Messages in the dead-letter queue.", 'sum(max by (job) (ticketlog_queue_messages{@,queue="dead_letter"}))',
             thresholds=[("green", None), ("yellow", 1), ("red", 1000)], runbooks=["TicketlogDeadLettersUnattended"]),
        stat("Parked", "short", "Messages set aside in the parked queue.", 'sum(max by (job) (ticketlog_queue_messages{@,queue="parked"}))'),
        stat("Breaker", "short", "Open: nearly everything is refused, and the worker holds instead of dead-lettering.",
             "max(ticketlog_breaker_open@)", mappings={"0": "closed", "1": "OPEN"}, thresholds=ZERO_IS_GOOD,
             runbooks=["TicketlogBreakerOpen"]),
        stat("Share of messages, 1 h", "percentunit", "Dead-lettered, of all that got an outcome.",
             'sum(increase(ticketlog_messages_settled_total{@,outcome="dead_lettered"}[1h])) / sum(increase(ticketlog_messages_settled_total{@,outcome!="returned"}[1h]))',
             thresholds=[("green", None), ("yellow", 0.001), ("red", 0.05)], runbooks=["TicketlogDeadLetterRatio"]),
        stat("Not published yet", "short", "Bad messages whose dead letter is not confirmed.", "sum(ticketlog_dead_letters_waiting@)",
             thresholds=[("green", None), ("yellow", 1), ("red", 100)], runbooks=["TicketlogDeadLetteringUnavailable"]),
        stat("Dead letters, 24 h", "short", "Confirmed in a day.", "sum(increase(ticketlog_dead_letters_total@[24h]))"),
    ]),
    ("Why", [
        graph("By reason", "short", "Confirmed dead letters in five minutes.",
              ("sum by (reason) (increase(ticketlog_dead_letters_total@[5m])) > 0 or on() vector(0)", "{{reason}}"), stack=True, w=16,
              runbooks=["TicketlogDeadLetterRatio"]),
        bars("Since the start, by reason", "short", "Since each worker's start; reasons that never came are left out.",
             "sort_desc(sum by (reason) (ticketlog_dead_letters_total@) > 0) or on() vector(0)", "{{reason}}"),
    ]),
    ("The way there", [
        graph("Publishing", "cps", "Dead letters that could not be published, by cause; they are tried again, their originals stay unacknowledged.",
              ("sum by (cause) (rate(ticketlog_dead_letter_publish_failures_total@[$__rate_interval]))", "{{cause}}"),
              runbooks=["TicketlogDeadLetteringUnavailable"]),
        graph("Queues", "short", "Messages ready in the dead-letter queue and the parked queue. A desk at work holds some.",
              ('sum by (queue) (max by (job, queue) (ticketlog_queue_messages{@,queue=~"dead_letter|parked"}))', "{{queue}}")),
        graph("Publishers opened", "short", "Connections for dead letters, opened in five minutes.",
              ("sum(increase(ticketlog_publishers_opened_total@[5m]))", "opened")),
    ]),
    ("Replays", [
        graph("By outcome", "short", "Replayed messages in five minutes. Those still bad are dead letters again.",
              ("sum by (outcome) (increase(ticketlog_replayed_messages_total@[5m]))", "{{outcome}}"), stack=True, w=16),
        bars("Since the start", "short", "Replayed messages by outcome, since each worker's start.",
             "sum by (outcome) (ticketlog_replayed_messages_total@)", "{{outcome}}"),
    ]),
]

DEPENDENCIES = [
    ("State", [
        states("By worker", "Each part of each worker over time; /readyz says what is wrong, in words.",
               "ticketlog_dependency_up@", "{{instance}} {{part}}", w=24, h=7, runbooks=["TicketlogUnready"]),
    ]),
    ("RabbitMQ", [
        graph("Ends of sessions", "short", "In five minutes, by cause. `cancelled`: the queue was deleted or its leader moved; `closed`: an error of the channel.",
              ("sum by (cause) (increase(ticketlog_session_ends_total@[5m])) > 0 or on() vector(0)", "{{cause}}"), runbooks=["TicketlogSessionFlapping"]),
        graph("Sessions opened", "short", "In five minutes.", ("sum by (instance) (increase(ticketlog_sessions_opened_total@[5m]))", "{{instance}}")),
        graph("Releases", "short", "Times that everything was given back during an outage, in an hour.",
              ("sum(increase(ticketlog_releases_total@[1h]))", "releases"), runbooks=["TicketlogReleaseNear"]),
        graph("Queues", "short", "Messages ready, as a passive declaration tells.", ("sum by (queue) (max by (job, queue) (ticketlog_queue_messages@))", "{{queue}}")),
        graph("Consumers", "short", "Of each queue, all workers together.", ("sum by (queue) (max by (job, queue) (ticketlog_queue_consumers@))", "{{queue}}"),
              runbooks=["TicketlogNoConsumer"]),
        graph("Prefetch", "short", "In force; grows while messages are small, 0 without a session.", ("ticketlog_prefetch@", "{{instance}}")),
    ]),
    ("MongoDB", [
        graph("Writes", "cps", "By outcome. `partial`: some documents were refused, each for its own reason.",
              ("sum by (outcome) (rate(ticketlog_store_write_duration_seconds_count@[$__rate_interval]))", "{{outcome}}"), stack=True,
              runbooks=["TicketlogStoreUnavailable"]),
        graph("Retries", "short", "Writes that will be tried again, in five minutes, by kind of failure.",
              ("sum by (kind) (increase(ticketlog_store_retries_total@[5m])) > 0 or on() vector(0)", "{{kind}}"), runbooks=["TicketlogStoreUnavailable"]),
        graph("Clocks", "s", "How far MongoDB's clock, and the most any event of the last minute, is ahead of the worker's.",
              ("max by (against) (ticketlog_clock_skew_seconds@)", "{{against}}"), min=None, runbooks=["TicketlogClockSkew"]),
    ]),
    ("The process", [
        graph("Memory", "bytes", "Resident.", ("process_resident_memory_bytes@", "{{instance}}")),
        graph("File descriptors", "short", "Open ones, and the most.", ("process_open_fds@", "{{instance}}"), ("min(process_max_fds@)", "most")),
        graph("Up for", "s", "Since the start of the process.", ("time() - process_start_time_seconds@", "{{instance}}"),
              runbooks=["TicketlogRestarting"]),
        graph("Threads", "short", "Of each worker.", ("process_threads@", "{{instance}}")),
        graph("Log lines", "short", "In a minute, by level, and lost because nobody read fast enough.",
              ("sum by (level) (increase(ticketlog_log_lines_total@[1m]))", "{{level}}"),
              ("sum(increase(ticketlog_log_lines_lost_total@[1m]))", "lost")),
        graph("Versions", "short", "Workers by version.", ("count by (version) (ticketlog_build_info@)", "{{version}}")),
    ]),
]  # fmt: skip

DASHBOARDS = {
    "overview": ("ticketlog: overview", "Is it well? What goes in, what comes out, how late.", OVERVIEW),
    "pipeline": ("ticketlog: pipeline", "Where does the time go?", PIPELINE),
    "dead-letters": ("ticketlog: dead letters", "What is malformed, why, and what became of replays.", DEAD_LETTERS),
    "dependencies": ("ticketlog: dependencies", "RabbitMQ, MongoDB and the process.", DEPENDENCIES),
}
