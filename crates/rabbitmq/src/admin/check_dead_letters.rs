//! What `ticketlog check` reports about the dead-letter queue and the parked queue: browsing, policies that remove messages, a full queue.

use serde_json::Value;

use ticketlog_config::QueueType;
use ticketlog_config::finding::Finding;

use super::super::error::BrokerError;
use super::super::topology;
use super::check::{Check, SEE_MANAGEMENT};
use super::delivery_limit::{NotBrowsable, check_browsable};
use super::management_api::ManagementApi;
use super::removal::removing_keys;

impl Check<'_> {
    pub(super) async fn dead_letter_queues(&self, findings: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let (dead_letters, parked) = (&self.settings.dead_letter_queue, &self.settings.parked_queue);
        for (subject, queue) in [("dead_letter.queue", dead_letters), ("dead_letter.parked_queue", parked)] {
            let arguments = topology::dead_letter_queue_arguments(&self.settings.broker);
            if !self.queue(subject, queue, arguments, findings).await? {
                continue;
            }
            if self.operator {
                findings.extend(self.read_permission(subject, queue).await?);
            }
            findings.extend(self.browsing(subject, queue).await?);
            if let Some(api) = &self.api {
                findings.extend(removal(api, subject, queue).await);
                findings.extend(fill_level(api, subject, queue).await);
            }
        }
        Ok(())
    }

    async fn browsing(&self, subject: &'static str, queue: &str) -> Result<Option<Finding>, BrokerError> {
        if self.settings.broker.queue_type == QueueType::Classic {
            return Ok(None);
        }
        let limit_text =
            |limit: Option<i64>| limit.map_or_else(String::new, |limit| format!(" (delivery limit {limit})"));
        let unknown = |message: String| Finding::warn(subject, message, SEE_MANAGEMENT);
        let browsable = check_browsable(self.connection(), &self.settings.broker, queue, self.management).await?;
        Ok(Some(match browsable {
            Ok(browsable) if browsable.policies_unknown.is_none() => {
                Finding::ok(subject, format!("queue {queue} can be browsed safely{}", limit_text(browsable.limit)))
            }
            Ok(browsable) => unknown(format!(
                "queue {queue} can be browsed safely{} unless a policy sets a lower delivery limit, which only the management \
                 API shows",
                limit_text(browsable.limit)
            )),
            Err(NotBrowsable::NoManagementApi(_)) => unknown(format!(
                "unknown whether queue {queue} can be browsed safely: only the management API shows policies"
            )),
            Err(NotBrowsable::NoPermission) if self.operator => Finding::fail(
                subject,
                format!(
                    "the user may not configure queue {queue}, which shows its delivery limit: it cannot be browsed"
                ),
                self.grant(),
            ),
            Err(NotBrowsable::NoPermission) => Finding::ok(
                subject,
                format!("queue {queue}: its delivery limit is shown to users who may configure it"),
            ),
            Err(reason) => Finding::fail(
                subject,
                format!("queue {queue} cannot be browsed safely: {reason}"),
                "raise its delivery limit with a policy, or move its messages to a queue that `ticketlog setup` declares",
            ),
        }))
    }
}

/// Whether a policy can remove messages from the queue.
async fn removal(api: &ManagementApi, subject: &'static str, queue: &str) -> Option<Finding> {
    let keys = removing_keys(&api.queue_policies(queue).await.ok()?);
    Some(if keys.is_empty() {
        Finding::ok(subject, format!("no policy removes messages from queue {queue}"))
    } else {
        let message = format!("a policy can remove messages from queue {queue}: {}", keys.join(", "));
        Finding::fail(subject, message, "exclude the queue from the policy: dead letters exist nowhere else")
    })
}

/// Whether a queue whose length is limited is full. The counts of the API may be some seconds old.
async fn fill_level(api: &ManagementApi, subject: &'static str, queue: &str) -> Option<Finding> {
    let found = match api.object("queues", &[queue]).await {
        Ok(found) => found,
        Err(error) => {
            let message = format!("unknown whether queue {queue} is full: {}", error.what());
            return Some(Finding::warn(subject, message, error.fix()));
        }
    };
    let (messages, bytes) =
        (level(&found, "messages", "max-length"), level(&found, "message_bytes", "max-length-bytes"));
    let levels: Vec<(u64, u64, &str)> =
        [messages.map(|(n, of)| (n, of, "messages")), bytes.map(|(n, of)| (n, of, "bytes"))]
            .into_iter()
            .flatten()
            .collect();
    let full = levels.iter().find(|(held, limit, _)| held >= limit);
    let text = |(held, limit, unit): &(u64, u64, &str)| format!("{held} of at most {limit} {unit}");
    match full {
        Some(level) => Some(Finding::fail(
            subject,
            format!("queue {queue} is full, with {}: the worker cannot get rid of dead letters", text(level)),
            "replay or purge some, or raise the limit: docs/operate/runbooks/TicketlogDeadLetteringUnavailable.md",
        )),
        None => Some(Finding::ok(subject, format!("queue {queue} holds {}", text(levels.first()?)))),
    }
}

/// What the queue holds, and the lowest limit of it among its arguments and the policies in force; `None` if there is no limit.
fn level(queue: &Value, held: &str, limit: &str) -> Option<(u64, u64)> {
    let argument = queue.get("arguments").and_then(|arguments| arguments.get(format!("x-{limit}"))?.as_u64());
    let policy = queue.get("effective_policy_definition").and_then(|policy| policy.get(limit)?.as_u64());
    Some((queue.get(held)?.as_u64()?, argument.into_iter().chain(policy).min()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lowest_limit_counts() {
        let queue = json!({
            "messages": 7, "message_bytes": 700, "arguments": { "x-max-length": 9 },
            "effective_policy_definition": { "max-length": 7 }
        });
        assert_eq!(level(&queue, "messages", "max-length"), Some((7, 7)));
        assert_eq!(level(&queue, "message_bytes", "max-length-bytes"), None);
        let without_policy =
            json!({ "messages": 7, "arguments": { "x-max-length": 9 }, "effective_policy_definition": [] });
        assert_eq!(level(&without_policy, "messages", "max-length"), Some((7, 9)));
    }
}
