//! Owns a MongoDB replica set of three members with access control that belongs to one test, which kills and restarts members.

use std::thread;

use bson::doc;
use mongodb::Client;

use super::servers::distinct_ports;
use super::{DEADLINE, DedicatedServer, ServerKind, eventually};

/// The administrator's login.
const ADMIN: &str = "admin:admin-secret";

/// Three members.
pub struct ReplicaSet {
    members: Vec<DedicatedServer>,
}

impl ReplicaSet {
    /// Starts the members, with a user `admin` who may do everything.
    pub async fn start() -> Self {
        let start = |port| {
            DedicatedServer::prepared_at(ServerKind::Member, port, |directory, _| {
                let key = directory.join("key");
                std::fs::write(&key, "a key for the members of this replica set alone").unwrap();
                std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
                let arguments = ["--auth", "--oplogSize", "1024", "--keyFile", key.to_str().unwrap()];
                std::fs::write(directory.join("arguments"), arguments.join("\n")).unwrap();
            })
        };
        let members: Vec<DedicatedServer> = thread::scope(|scope| {
            let started = distinct_ports::<3>().map(|port| scope.spawn(move || start(port)));
            started.into_iter().map(|member| member.join().unwrap()).collect()
        });
        let hosts = members.iter().zip(0..);
        let hosts = hosts.map(|(member, id)| doc! { "_id": id, "host": format!("127.0.0.1:{}", member.port()) });
        let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 };
        let config = doc! { "_id": "rs0", "members": hosts.collect::<Vec<_>>(), "settings": settings };
        let first = Client::with_uri_str(members[0].uri()).await.unwrap().database("admin");
        first.run_command(doc! { "replSetInitiate": config }).await.unwrap();
        let admin = doc! { "createUser": "admin", "pwd": "admin-secret", "roles": ["root"] };
        // It is the primary soon.
        eventually("the administrator exists", DEADLINE, async || first.run_command(admin.clone()).await.is_ok()).await;
        ReplicaSet { members }
    }

    /// The URI for a user and a password, separated by a colon.
    pub fn uri(&self, login: &str) -> String {
        let hosts: Vec<_> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port())).collect();
        format!("mongodb://{login}@{}/?replicaSet=rs0&authSource=admin&serverSelectionTimeoutMS=2000", hosts.join(","))
    }

    /// The URI for the administrator.
    pub fn admin_uri(&self) -> String {
        self.uri(ADMIN)
    }

    /// The number of the primary.
    pub async fn primary(&self, client: &Client) -> Option<usize> {
        let hello = client.database("admin").run_command(doc! { "hello": 1 }).await.ok()?;
        let port: u16 = hello.get_str("primary").ok()?.rsplit(':').next()?.parse().ok()?;
        self.members.iter().position(|member| member.port() == port)
    }

    /// Sends SIGKILL to a member.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member again.
    pub fn restart(&mut self, member: usize) {
        self.members[member].restart();
    }

    /// Whether every member is the primary or a secondary.
    pub async fn is_complete(&self, client: &Client) -> bool {
        let status = client.database("admin").run_command(doc! { "replSetGetStatus": 1 }).await.unwrap_or_default();
        let members = status.get_array("members").cloned().unwrap_or_default();
        let state = |member: &bson::Bson| member.as_document().and_then(|member| member.get_i32("state").ok());
        members.len() == self.members.len() && members.iter().all(|member| matches!(state(member), Some(1 | 2)))
    }

    /// The administrator's URI of each member.
    pub fn member_uris(&self) -> Vec<String> {
        let options = "directConnection=true&authSource=admin&serverSelectionTimeoutMS=2000";
        self.members.iter().map(|member| format!("mongodb://{ADMIN}@127.0.0.1:{}/?{options}", member.port())).collect()
    }
}
