//! Prints the last operations of one user, newest first. The query uses an index that `ticketlog setup` creates.
//!
//! usage: last_operations [USER_ID] [COUNT]    without a user: the one with the most operations
//!        last_operations total                only the number of all operations
//! environment: TICKETLOG_STORE__URI, TICKETLOG_STORE__DATABASE (cache), TICKETLOG_STORE__COLLECTION (bytemark_tickets_log)

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let client = Client::with_uri_str(variable("TICKETLOG_STORE__URI", "mongodb://127.0.0.1:27017")).await?;
    let database = client.database(&variable("TICKETLOG_STORE__DATABASE", "cache"));
    let log: Collection<Document> =
        database.collection(&variable("TICKETLOG_STORE__COLLECTION", "bytemark_tickets_log"));
    let mut arguments = std::env::args().skip(1);
    let user = match arguments.next() {
        Some(what) if what == "total" => {
            println!("{}", log.count_documents(doc! {}).await?);
            return Ok(());
        }
        Some(user) => Bson::Int64(user.parse()?),
        None => busiest_user(&log).await?,
    };
    let count = arguments.next().map_or(Ok(5), |count| count.parse())?;
    let mut found = log.find(doc! { "user_id": user.clone() }).sort(doc! { "timestamp": -1 }).limit(count).await?;
    println!("  the latest operations of user {user}:");
    while let Some(event) = found.try_next().await? {
        let text = |key: &str| match event.get(key) {
            Some(Bson::String(text)) => text.clone(),
            other => other.map(ToString::to_string).unwrap_or_default(),
        };
        let time = event.get("timestamp").and_then(millis).map(bson::DateTime::from_millis);
        let time = time.and_then(|time| time.try_to_rfc3339_string().ok()).unwrap_or_else(|| text("timestamp"));
        println!("  {time:<24}  {:<12} {:<10} {}", text("operation_type"), text("status"), text("uuid"));
    }
    Ok(())
}

/// A timestamp as the log stores it, in milliseconds: a number of any type.
fn millis(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int64(millis) => Some(*millis),
        Bson::Int32(millis) => Some(i64::from(*millis)),
        Bson::Double(millis) => Some(*millis as i64),
        _ => None,
    }
}

async fn busiest_user(log: &Collection<Document>) -> Result<Bson, Box<dyn Error>> {
    let pipeline = [doc! { "$sortByCount": "$user_id" }, doc! { "$limit": 1 }];
    let first = log.aggregate(pipeline).await?.try_next().await?;
    first.and_then(|mut group| group.remove("_id")).ok_or_else(|| "the log is empty".into())
}
