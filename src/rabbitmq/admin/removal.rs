//! Owns what can remove messages from a queue although nobody consumes them: policies. Arguments of a queue are compared when
//! it is declared. Changes nothing. Must not know what the queue is for.
//!
//! Source: RabbitMQ's pages on time to live and on queue length limits.

use serde_json::Value;

use crate::config::BrokerSettings;

use super::super::BrokerError;
use super::management_api::ManagementApi;

/// The keys of a policy that remove messages.
const REMOVING_KEYS: [&str; 4] = ["expires", "max-length", "max-length-bytes", "message-ttl"];

/// The keys of all policies for a queue that can remove messages from it, as `message-ttl = 60000`; none if the policies
/// cannot be read.
///
/// # Errors
/// `InvalidUri`.
pub async fn removing_policies(settings: &BrokerSettings, queue: &str) -> Result<Option<Vec<String>>, BrokerError> {
    let named = settings.management_url();
    let Some(api) = ManagementApi::find(settings, named.as_ref()).await? else { return Ok(None) };
    Ok(api.queue_policies(queue).await.map(|policies| removing_keys(&policies)))
}

/// As [`removing_policies`], of these policies. A queue that rejects what exceeds its length removes nothing.
pub(super) fn removing_keys(policies: &[Value]) -> Vec<String> {
    let rejects = |policy: &Value| {
        policy.get("overflow").and_then(Value::as_str).is_some_and(|overflow| overflow.starts_with("reject-publish"))
    };
    let removing = |policy: &Value, key: &str| !(key.starts_with("max-length") && rejects(policy));
    let keys = policies.iter().flat_map(|policy| {
        let set = REMOVING_KEYS.iter().filter(|key| removing(policy, key));
        set.filter_map(|key| Some(format!("{key} = {}", policy.get(key)?)))
    });
    let mut keys: Vec<String> = keys.collect();
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_that_remove_messages_are_found() {
        let all = [
            json!({ "message-ttl": 60000, "max-length": 5 }),
            json!({ "max-length": 5, "overflow": "drop-head" }),
            json!({ "max-length-bytes": 7, "overflow": "reject-publish" }),
            json!({ "delivery-limit": 5, "expires": 9 }),
        ];
        assert_eq!(removing_keys(&all), ["expires = 9", "max-length = 5", "message-ttl = 60000"]);
        assert!(removing_keys(&[json!({ "delivery-limit": 5 })]).is_empty());
    }
}
