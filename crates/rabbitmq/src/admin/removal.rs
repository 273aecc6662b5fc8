//! Owns what can remove messages from a queue although nobody consumes them: policies. Arguments of a queue are compared when it is
//! declared. Changes nothing.
//!
//! Source: RabbitMQ's pages on time to live and on queue length limits.

use serde_json::Value;

use ticketlog_config::BrokerSettings;

use super::management_api::{ManagementApi, ManagementError, MatchingPolicy};

/// The keys of a policy that remove messages.
const REMOVING_KEYS: [&str; 4] = ["expires", "max-length", "max-length-bytes", "message-ttl"];

/// The keys of all policies for a queue that can remove messages from it, as `message-ttl = 60000`.
///
/// # Errors
/// The policies cannot be read.
pub async fn removing_policies(settings: &BrokerSettings, queue: &str) -> Result<Vec<String>, ManagementError> {
    let api = ManagementApi::find(settings, None).await?;
    Ok(removing_keys(&api.queue_policies(queue).await?))
}

/// As [`removing_policies`], of these policies.
pub(super) fn removing_keys(policies: &[MatchingPolicy]) -> Vec<String> {
    // One of these is in force beside any operator policy.
    let mut others = policies.iter().filter(|policy| !policy.is_operator).peekable();
    let others_reject = others.peek().is_some() && others.all(rejects);
    let removing = |policy: &MatchingPolicy, key: &str| {
        !(key.starts_with("max-length") && (rejects(policy) || policy.is_operator && others_reject))
    };
    let keys = policies.iter().flat_map(|policy| {
        let set = REMOVING_KEYS.iter().filter(|key| removing(policy, key));
        set.filter_map(|key| Some(format!("{key} = {}", policy.definition.get(key)?)))
    });
    let mut keys: Vec<String> = keys.collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a queue with this policy rejects what exceeds its length, and so removes nothing. Quorum queues take
/// `reject-publish-dlx` for `drop-head` (RabbitMQ's `rabbit_quorum_queue`).
fn rejects(policy: &MatchingPolicy) -> bool {
    match policy.definition.get("overflow").and_then(Value::as_str) {
        Some("reject-publish") => true,
        Some("reject-publish-dlx") => policy.is_for_classic,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(definition: Value) -> MatchingPolicy {
        MatchingPolicy { definition, is_operator: false, is_for_classic: false }
    }

    #[test]
    fn policies_that_remove_messages_are_found() {
        let all = [
            policy(json!({ "message-ttl": 60000, "max-length": 5 })),
            policy(json!({ "max-length": 5, "overflow": "drop-head" })),
            policy(json!({ "max-length-bytes": 7, "overflow": "reject-publish" })),
            policy(json!({ "delivery-limit": 5, "expires": 9 })),
        ];
        assert_eq!(removing_keys(&all), ["expires = 9", "max-length = 5", "message-ttl = 60000"]);
        assert!(removing_keys(&[policy(json!({ "delivery-limit": 5 }))]).is_empty());
    }

    #[test]
    fn quorum_queues_drop_messages_where_classic_ones_reject_them() {
        let definition = json!({ "max-length": 5, "overflow": "reject-publish-dlx" });
        assert_eq!(removing_keys(&[policy(definition.clone())]), ["max-length = 5"]);
        assert!(removing_keys(&[MatchingPolicy { is_for_classic: true, ..policy(definition) }]).is_empty());
    }

    #[test]
    fn the_length_of_an_operator_policy_is_merged_with_the_overflow_of_the_other() {
        let operator = MatchingPolicy { is_operator: true, ..policy(json!({ "max-length": 5 })) };
        let reject = policy(json!({ "overflow": "reject-publish" }));
        assert!(removing_keys(&[operator.clone(), reject.clone()]).is_empty());
        assert_eq!(removing_keys(&[operator.clone(), reject, policy(json!({}))]), ["max-length = 5"]);
        assert_eq!(removing_keys(&[operator]), ["max-length = 5"]);
    }
}
