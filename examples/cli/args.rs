//! What the user asks for.

use std::num::NonZeroUsize;
use std::path::{self, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use reqwest::{Method, Url};

use crate::exit;
use crate::profile::Name;
use crate::tokens::Tokens;
use crate::trouble::Trouble;

/// Calls a token-protected API, and stays logged in.
#[derive(Debug, Parser)]
#[command(name = "cli", version, after_help = exit::TABLE)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
pub struct Global {
    /// Which login this is about
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    pub profile: Name,

    /// Where the profiles are kept, none of them secret [default: reqwest-reauth-cli among this
    /// user's settings]
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute)]
    pub config_dir: Option<PathBuf>,

    /// Where it is noted that somebody is logged in; kept in the profile by a login [default:
    /// reqwest-reauth among this user's state files]
    #[arg(long, global = true, value_name = "DIR", value_parser = absolute)]
    pub state_dir: Option<PathBuf>,

    /// Print one JSON object, and nothing else, to stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep the tokens of a login
    ///
    /// What is not given is taken from the profile, if there is one: `login --tokens-stdin` logs
    /// in again.
    Login(Login),
    /// Send a request with the access token, or many
    ///
    /// The body of a single answer goes to stdout, as it is. Of several, only what they came to
    /// is told.
    Call(Call),
    /// Print the access token, refreshed first if it has expired
    Token,
    /// Tell how the login stands; asks no server
    Status,
    /// Forget the tokens, and revoke them at the server if it can
    Logout,
}

#[derive(Debug, clap::Args)]
pub struct Login {
    /// Read a token response (RFC 6749 §5.1, JSON) from stdin
    #[arg(long)]
    pub tokens_stdin: bool,

    /// Where tokens are refreshed
    #[arg(long, value_name = "URL")]
    pub token_endpoint: Option<String>,

    /// The client that the tokens were issued to
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,

    /// The environment variable that holds the client's secret, now and at each later command;
    /// empty for none
    #[arg(long, value_name = "NAME")]
    pub client_secret_env: Option<String>,

    /// Where `logout` revokes the refresh token (RFC 7009); empty for nowhere
    #[arg(long, value_name = "URL")]
    pub revocation_endpoint: Option<String>,

    /// Who may see the token, such as https://api.example.com (repeatable)
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,

    /// Where the tokens are kept: keychain, or file:DIR, in clear [default: keychain]
    #[arg(long, value_name = "STORE")]
    pub store: Option<Tokens>,
}

#[derive(Debug, clap::Args)]
pub struct Call {
    /// What to call, at one of the profile's origins
    pub url: Url,

    /// [default: GET, or POST with --data]
    #[arg(long, value_name = "METHOD")]
    pub method: Option<Method>,

    /// The body: TEXT, @FILE, or - for stdin
    #[arg(long, value_name = "BODY")]
    pub data: Option<String>,

    /// A header, as 'Name: value' (repeatable)
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,

    /// How often to send it
    #[arg(long, value_name = "N", default_value = "1")]
    pub count: NonZeroUsize,

    /// How many to have under way at once
    #[arg(long, value_name = "C", default_value = "1")]
    pub concurrency: NonZeroUsize,

    /// How long a request may take, a refresh included [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
}

/// Tells what is wrong with the arguments, or the help that was asked for.
pub fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Help for nobody who reads it is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let as_json = std::env::args_os().any(|arg| arg == "--json");
    let message = error.to_string();
    Trouble::usage(message.trim_start_matches("error: ").trim_end()).tell(as_json).into()
}

/// The next command may run elsewhere.
fn absolute(text: &str) -> Result<PathBuf, std::io::Error> {
    path::absolute(text)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
