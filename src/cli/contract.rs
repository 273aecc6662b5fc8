//! `ticketlog contract`: what publishers need to know, in formats that their tools read; and reading it where the settings are not known.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Contract, RouteContract, Rules};
use ticketlog_http::client as http_client;

use super::terminal::{note, print_line};
use super::worker_address::parse_http_url;
use super::{CommandError, ConfigArgs, exit};

/// How long a worker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `ticketlog contract`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ticketlog contract --format json-schema --strict >event.schema.json
  ticketlog contract --contract http://worker-1:9464 --format typescript >events.ts")]
pub(super) struct ContractArgs {
    #[command(flatten)]
    source: ContractSource,
    /// How to print it: the JSON document that a worker serves at /contract.json, JSON Schema (2020-12) of one route, AsyncAPI 3, types
    /// of TypeScript, or a page in Markdown.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Json)]
    format: Format,
    /// Forbid what is stored and is probably a mistake: times that are not in milliseconds, ids that JavaScript rounds, an event without
    /// a time, misspelt names such as `userId`.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    JsonSchema,
    Asyncapi,
    Typescript,
    Markdown,
}

impl ContractArgs {
    pub fn run(&self, config: &ConfigArgs) -> Result<u8, CommandError> {
        let contract = self.source.read(config)?;
        let text = match self.format {
            Format::Json => pretty(&contract.to_json(self.strict)),
            Format::JsonSchema => pretty(&one_route(&contract)?.json_schema(self.strict)),
            Format::Asyncapi => pretty(&contract.asyncapi(self.strict)),
            Format::Typescript => contract.typescript(self.strict),
            Format::Markdown => contract.markdown(self.strict),
        };
        print_line(text.trim_end()).map(|()| 0)
    }
}

fn pretty(json: &Value) -> String {
    format!("{json:#}")
}

/// Where a contract is read.
#[derive(Debug, Args)]
pub(super) struct ContractSource {
    /// The contract that a worker serves at this address, or that is in this file, instead of the settings.
    #[arg(long, value_name = "URL|FILE")]
    contract: Option<String>,
}

impl ContractSource {
    /// The contract of the routes that a command is about.
    pub fn read(&self, config: &ConfigArgs) -> Result<Contract, CommandError> {
        let Some(source) = &self.contract else {
            return Ok(Contract::new(config.routes()?.iter().map(RouteSettings::contract).collect()));
        };
        let mut contract = match parse_http_url(source) {
            Ok(url) => parse(source, &super::block_on(fetch(&url))?)?,
            Err(_) => {
                let unreadable =
                    |error| CommandError::text(exit::NO_INPUT, format!("{source} cannot be read: {error}"));
                parse(source, &std::fs::read(source).map_err(unreadable)?)?
            }
        };
        let names: Vec<String> = contract.routes.iter().map(|route| route.route.clone()).collect();
        if let Some(name) = config.route.iter().find(|name| !names.contains(name)) {
            let text = format!("there is no route {name:?}; {source} has {}", names.join(", "));
            return Err(CommandError::text(exit::CONFIG, text));
        }
        contract.routes.retain(|route| config.route.is_empty() || config.route.contains(&route.route));
        Ok(contract)
    }

    /// The rules of the one route that a command is about, and its exchange.
    pub fn rules_and_exchange(&self, config: &ConfigArgs) -> Result<(Rules, String), CommandError> {
        if self.contract.is_none() {
            let settings = config.one_route()?;
            return Ok((settings.rules(), settings.broker.exchange.clone()));
        }
        let contract = self.read(config)?;
        let route = one_route(&contract)?;
        if route.hides_fields {
            note("the worker hides some fields, which a contract does not name: documents are shown with all of them");
        }
        Ok((route.rules(), route.exchange.clone()))
    }
}

/// The first route. Says if there are others.
fn one_route(contract: &Contract) -> Result<&RouteContract, CommandError> {
    let Some((first, others)) = contract.routes.split_first() else {
        return Err(CommandError::usage("there is no route"));
    };
    if !others.is_empty() {
        let others: Vec<_> = others.iter().map(|route| route.route.as_str()).collect();
        note(format_args!("this is about the route {}; --route names another: {}", first.route, others.join(", ")));
    }
    Ok(first)
}

fn parse(source: &str, bytes: &[u8]) -> Result<Contract, CommandError> {
    Contract::from_json(bytes).map_err(|problem| CommandError::text(exit::DATA, format!("{source} {problem}")))
}

/// What a worker serves; its address is enough.
async fn fetch(url: &url::Url) -> Result<Vec<u8>, CommandError> {
    let mut url = url.clone();
    if url.path() == "/" {
        url.set_path("/contract.json");
    }
    match http_client::get(&url, None, None, TIMEOUT).await {
        Ok((200, body)) => Ok(body.to_vec()),
        Ok((status, _)) => {
            Err(CommandError::text(exit::UNAVAILABLE, format!("{url} answers {status}; expected a contract")))
        }
        Err(error) => Err(CommandError::text(exit::UNAVAILABLE, format!("{url}: {error}"))),
    }
}
