//! Owns requests to RabbitMQ's management API: its address, its login, its lists.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::uri::AMQPUri;
use regex::Regex;
use serde_json::Value;
use url::Url;

use ticketlog_config::BrokerSettings;
use ticketlog_http::client as http_client;

use super::super::connection::handshake;
use super::super::connection::uri::{Endpoints, is_encrypted};
use super::super::error::BrokerError;

const TIMEOUT: Duration = Duration::from_secs(2);
/// The address of an API and the name of its cluster, which was that of the AMQP handshake. RabbitMQ logs a handshake that ends
/// early, so it is not repeated.
static VERIFIED: Mutex<Option<(String, String)>> = Mutex::new(None);

/// A policy whose pattern matches a queue.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MatchingPolicy {
    pub definition: Value,
    /// Whether it is an operator policy, which is merged with the other policy in force.
    pub is_operator: bool,
    /// Whether it applies to classic queues only.
    pub is_for_classic: bool,
}

/// The API of one broker, for one virtual host.
pub(super) struct ManagementApi {
    base: Url,
    vhost: String,
    authorization: String,
    ca_file: String,
}

impl ManagementApi {
    /// The API at `named`; or else at port 15672 of the broker's host, if the broker connection is not encrypted either and
    /// the API names the same cluster as the AMQP handshake, because several brokers may share a host. `None` if there is no
    /// such API.
    ///
    /// # Errors
    /// `InvalidUri`.
    pub async fn find(settings: &BrokerSettings, named: Option<&Url>) -> Result<Option<Self>, BrokerError> {
        let endpoints = Endpoints::parse(settings)?;
        let uri = endpoints.first()?;
        if let Some(base) = named {
            return Ok(Some(ManagementApi::new(settings, uri, base.clone())));
        }
        let Ok(base) = Url::parse(&format!("http://{}:15672", uri.authority.host)) else { return Ok(None) };
        if is_encrypted(uri) {
            return Ok(None);
        }
        let api = ManagementApi::new(settings, uri, base);
        let Some(overview) = api.get(&["api", "overview"]).await else { return Ok(None) };
        let Some(cluster) = overview.get("cluster_name").and_then(Value::as_str) else { return Ok(None) };
        let found = (api.base.to_string(), cluster.to_owned());
        if VERIFIED.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&found) {
            return Ok(Some(api));
        }
        if handshake::server_properties(&endpoints).await.cluster_name.as_deref() != Some(cluster) {
            return Ok(None);
        }
        *VERIFIED.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(Some(api))
    }

    fn new(settings: &BrokerSettings, uri: &AMQPUri, base: Url) -> Self {
        let user = &uri.authority.userinfo;
        ManagementApi {
            base,
            vhost: if uri.vhost.is_empty() { "/".to_owned() } else { uri.vhost.clone() },
            authorization: format!("Basic {}", BASE64.encode(format!("{}:{}", user.username, user.password))),
            ca_file: settings.tls_ca.clone(),
        }
    }

    /// The list at `/api/<kind>/<vhost>/<path>`; `None` if there is no valid answer within two seconds.
    pub async fn list(&self, kind: &str, path: &[&str]) -> Option<Vec<Value>> {
        let path: Vec<&str> = ["api", kind, &self.vhost].iter().chain(path).copied().collect();
        match self.get(&path).await? {
            Value::Array(list) => Some(list),
            _ => None,
        }
    }

    /// All policies and operator policies whose pattern matches the queue. Which of them is in force
    /// depends on their priorities. `None` if there is no valid answer.
    ///
    /// The policies themselves are read, because the API's data about a queue may be ten seconds old.
    pub async fn queue_policies(&self, queue: &str) -> Option<Vec<MatchingPolicy>> {
        let policies = matching(&self.list("policies", &[]).await?, queue, false);
        let operator = matching(&self.list("operator-policies", &[]).await?, queue, true);
        Some(policies.into_iter().chain(operator).collect())
    }

    async fn get(&self, path: &[&str]) -> Option<Value> {
        let mut url = self.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(path);
        let (status, body) = http_client::get(&url, Some(&self.authorization), Some(&self.ca_file), TIMEOUT).await?;
        serde_json::from_slice(&body).ok().filter(|_| status == 200)
    }
}

fn matching(policies: &[Value], queue: &str, is_operator: bool) -> Vec<MatchingPolicy> {
    let text = |policy: &Value, key: &str| policy.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let matches = |policy: &&Value| {
        // A pattern that this regex engine cannot parse may match in RabbitMQ.
        let mismatch = Regex::new(&text(policy, "pattern")).is_ok_and(|pattern| !pattern.is_match(queue));
        !mismatch && !["exchanges", "streams"].contains(&text(policy, "apply-to").as_str())
    };
    let matched = policies.iter().filter(matches).filter_map(|policy| {
        let is_for_classic = text(policy, "apply-to") == "classic_queues";
        Some(MatchingPolicy { definition: policy.get("definition")?.clone(), is_operator, is_for_classic })
    });
    matched.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_match_by_pattern_and_kind() {
        let policy = |pattern: &str, apply_to: &str, length: i64| json!({ "pattern": pattern, "apply-to": apply_to, "definition": { "max-length": length } });
        let all = [
            policy("^other$", "queues", 1),
            policy(".*dead$", "exchanges", 2),
            policy("dead", "all", 3),
            policy("(?<x", "classic_queues", 4),
        ];
        let matched = |length: i64, is_for_classic| MatchingPolicy {
            definition: json!({ "max-length": length }),
            is_operator: true,
            is_for_classic,
        };
        assert_eq!(matching(&all, "log.dead", true), [matched(3, false), matched(4, true)]);
    }
}
