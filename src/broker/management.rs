//! Owns a question to RabbitMQ's management API: where it is, who asks, and a list as the answer. Must not know what is asked.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::uri::{AMQPScheme, AMQPUri};
use serde_json::Value;
use url::Url;

use crate::fetch;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The API of one broker, asked about one virtual host.
pub(super) struct Management {
    base: Url,
    vhost: String,
    login: String,
}

impl Management {
    /// The one named, or else at its usual port of the broker's host, where the password travels unencrypted to the broker
    /// anyway. None where neither is to be asked.
    pub fn of(uri: &AMQPUri, named: Option<&Url>) -> Option<Self> {
        let usual = || Url::parse(&format!("http://{}:15672", uri.authority.host)).ok();
        let base = match named {
            None if uri.scheme == AMQPScheme::AMQP => usual()?,
            named => named?.clone(),
        };
        let user = &uri.authority.userinfo;
        Some(Management {
            base,
            vhost: if uri.vhost.is_empty() { "/".to_owned() } else { uri.vhost.clone() },
            login: format!("Basic {}", BASE64.encode(format!("{}:{}", user.username, user.password))),
        })
    }

    /// `/api/<what>/<vhost>/<rest>`; none if there is no answer that can be read.
    pub async fn list(&self, what: &str, rest: &[&str]) -> Option<Vec<Value>> {
        let mut url = self.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(["api", what, &self.vhost]).extend(rest);
        let (status, body) = fetch::get(&url, Some(&self.login), PATIENCE).await?;
        serde_json::from_slice(&body).ok().filter(|_| status == 200)
    }
}
