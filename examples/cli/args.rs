//! What the user asks for.

use std::num::NonZeroUsize;
use std::path::{self, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use reqwest::{Method, Url};

use crate::exit;
use crate::profile::{self, Name};
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

#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Which login this is about [default: the one of `accounts use`, else default]
    #[arg(long = "profile", global = true, help_heading = EVERYWHERE, value_name = "NAME")]
    pub given: Option<Name>,

    /// The one that was given or chosen
    #[arg(skip)]
    pub profile: Name,

    /// Where the profiles are kept, none of them secret [default: reqwest-reauth-cli among this
    /// user's settings]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "DIR", value_parser = absolute)]
    pub config_dir: Option<PathBuf>,

    /// Where it is noted that somebody is logged in; kept in the profile by a login [default:
    /// reqwest-reauth among this user's state files]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "DIR", value_parser = absolute)]
    pub state_dir: Option<PathBuf>,

    /// Print one JSON object, and nothing else, to stdout
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
}

impl Global {
    /// Finds out which profile this is about.
    ///
    /// # Errors
    /// What was chosen can't be read.
    pub fn choose(&mut self) -> Result<(), Trouble> {
        self.profile = match &self.given {
            Some(name) => name.clone(),
            None => profile::chosen(self)?,
        };
        Ok(())
    }

    /// The same, about another profile.
    pub fn about(&self, name: &Name) -> Self {
        Self { profile: name.clone(), ..self.clone() }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in, in the browser, on another device, or with tokens from elsewhere
    ///
    /// What is not given is taken from the profile, if there is one: `login` alone logs in again,
    /// as before.
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(Box<Login>),
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
    Logout(Logout),
    /// List the logins, or choose the one that commands are about
    Accounts {
        #[command(subcommand)]
        choice: Option<Choice>,
    },
    /// Find out what is wrong, and what to do about it
    Doctor,
    /// Print what makes a shell complete this program's arguments
    Completions { shell: clap_complete::Shell },
}

impl Command {
    /// Whether it needs to know which. One that does not can put a bad choice right.
    pub fn is_about_a_profile(&self) -> bool {
        !matches!(
            self,
            Self::Accounts { choice: Some(_) }
                | Self::Completions { .. }
                | Self::Logout(Logout { all: true })
        )
    }
}

#[derive(Debug, clap::Args)]
pub struct Logout {
    /// Of every profile, not just one
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
pub enum Choice {
    /// Make this profile the one that commands are about
    Use { name: Name },
}

#[derive(Debug, clap::Args)]
pub struct Login {
    /// Log in in this machine's browser; over SSH, open the printed URL (see --redirect-uri)
    #[arg(long, group = "way")]
    pub browser: bool,

    /// Log in on another device, with a code
    #[arg(long, group = "way")]
    pub device: bool,

    /// Read a token response (RFC 6749 §5.1, JSON) from stdin
    #[arg(long, group = "way")]
    pub tokens_stdin: bool,

    /// Read a token response from a file of another program's
    #[arg(long, value_name = "FILE", group = "way")]
    pub tokens_file: Option<PathBuf>,

    /// The authorization server, such as https://id.example.com: it says where its endpoints are
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,

    /// What to ask for, with spaces between: many servers want offline_access for a login that
    /// lasts
    #[arg(long, value_name = "SCOPES")]
    pub scope: Option<String>,

    /// What else to tell the server at a login, such as audience=https://api.example.com, or
    /// prompt=consent, which some want for a login that lasts (repeatable; empty for nothing)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter)]
    pub param: Vec<String>,

    /// Where the browser brings its answer, as it is registered, such as
    /// http://127.0.0.1:8400/callback [default: any port]
    #[arg(long, value_name = "URL")]
    pub redirect_uri: Option<String>,

    /// Only print the login page's URL
    #[arg(long, requires = "browser")]
    pub no_open: bool,

    /// Where tokens are issued and refreshed, for a server that doesn't say it
    #[arg(long, value_name = "URL", conflicts_with = "issuer")]
    pub token_endpoint: Option<String>,

    /// Where a person logs in, for a server that doesn't say it
    #[arg(long, value_name = "URL")]
    pub authorization_endpoint: Option<String>,

    /// Where a login on another device begins, for a server that doesn't say it
    #[arg(long, value_name = "URL")]
    pub device_authorization_endpoint: Option<String>,

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

/// What every command has, below what is its own.
const EVERYWHERE: &str = "Everywhere";

const LOGIN_EXAMPLES: &str = "\
Examples:
  cli login --browser --issuer https://id.example.com --client-id my-cli \\
      --origin https://api.example.com --scope offline_access
  cli login --device                 the same server, from a machine without a browser
  cli login --tokens-stdin < tokens.json";

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

fn parameter(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) | None if !text.is_empty() => Err("not of the form NAME=VALUE".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
