//! HTTP/1 as this program uses it: a client for GET requests, and a server. Both are bounded in time and size, and know
//! nothing of what they carry.

pub mod client;
pub mod server;
