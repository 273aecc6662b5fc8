//! Owns servers with access control: a MongoDB with the roles of deploy/mongodb and one user each, a RabbitMQ with the logins of
//! deploy/rabbitmq.

use bson::{Document, doc};
use mongodb::Client;

use super::{DedicatedServer, ServerKind};

/// Starts it with a user `admin` who may do everything. The client is logged in as `admin`.
pub async fn store() -> (DedicatedServer, Client) {
    let store = DedicatedServer::prepared(ServerKind::Mongodb, |directory, _| {
        let key = directory.join("key");
        std::fs::write(&key, "a key for the members of this replica set alone").unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        let arguments = ["--auth", "--keyFile", key.to_str().unwrap()];
        std::fs::write(directory.join("arguments"), arguments.join("\n")).unwrap();
    });
    let admin = doc! { "createUser": "admin", "pwd": "admin-secret", "roles": ["root"] };
    let without_login = Client::with_uri_str(store.uri()).await.unwrap();
    without_login.database("admin").run_command(admin).await.unwrap();
    let client = Client::with_uri_str(as_user(&store, "admin", "admin")).await.unwrap();
    (store, client)
}

/// Creates the roles for this collection, and for each role a user with the role's name.
pub async fn roles(client: &Client, database: &str, collection: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mongodb/roles.json");
    let roles = std::fs::read_to_string(path).unwrap();
    let roles = roles.replace("\"cache\"", &format!("\"{database}\"")).replace("bytemark_tickets_log", collection);
    let commands: Vec<serde_json::Value> = serde_json::from_str(&roles).unwrap();
    for command in commands {
        let command: Document = bson::serialize_to_document(&command).unwrap();
        client.database(database).run_command(command.clone()).await.unwrap();
        let role = command.get_str("createRole").unwrap();
        let user = doc! { "createUser": role, "pwd": format!("{role}-secret"), "roles": [role] };
        client.database(database).run_command(user).await.unwrap();
    }
}

/// The URI for a user who was created in the database `source`.
pub fn as_user(store: &DedicatedServer, user: &str, source: &str) -> String {
    store.uri().replace("mongodb://", &format!("mongodb://{user}:{user}-secret@")) + "&authSource=" + source
}

/// The users of deploy/rabbitmq.
const LOGINS: [&str; 4] = ["ticketlog", "ticketlog-desk", "tickets-publisher", "ticketlog-admin"];

pub fn import(broker: &DedicatedServer, file: &str) {
    let path = format!("{}/deploy/rabbitmq/{file}", env!("CARGO_MANIFEST_DIR"));
    broker.eval(&format!("{{ok, Text}} = file:read_file(\"{path}\"), ok = rabbit_definitions:import_raw(Text)."));
}

/// A broker with the users of deploy/rabbitmq, as its README creates them, and nothing else.
pub fn broker_with_logins() -> DedicatedServer {
    with_logins(DedicatedServer::start(ServerKind::Rabbitmq))
}

fn with_logins(broker: DedicatedServer) -> DedicatedServer {
    LOGINS.iter().for_each(|user| broker.add_user(user, &format!("{user}-secret"), None));
    import(&broker, "permissions.json");
    broker
}

/// The same with the topology of deploy/rabbitmq. A second import of either file leaves the passwords as they are.
pub fn broker_with_topology() -> DedicatedServer {
    with_topology(broker_with_logins())
}

/// The same with the management API, at this URL, and operators who may ask it.
pub fn broker_with_management() -> (DedicatedServer, String) {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].").unwrap();
        let listener = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n", port + 3);
        std::fs::write(directory.join("extra.conf"), listener).unwrap();
    });
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let broker = with_topology(with_logins(broker));
    broker.eval("rabbit_auth_backend_internal:set_tags(<<\"ticketlog-desk\">>, [management], <<\"test\">>).");
    (broker, management)
}

fn with_topology(broker: DedicatedServer) -> DedicatedServer {
    for file in ["definitions.json", "permissions.json", "definitions.json"] {
        import(&broker, file);
    }
    broker
}
