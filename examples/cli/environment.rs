//! `REAUTH_TOKEN`: a bare access token, in place of the stored login.

use std::env;

use async_trait::async_trait;
use reqwest_reauth::{
    MemoryStore, RefreshError, RefreshToken, Session, TokenEndpoint, TokenResponse,
};
use serde_json::json;

use crate::account::{Account, Source};
use crate::args::{Args, Command, Global};
use crate::exit::Exit;
use crate::output::print;
use crate::profile::SERVICE;
use crate::trouble::Trouble;

/// The token, if one is set; an empty one is none.
///
/// # Errors
/// It is no text.
pub fn token() -> Result<Option<String>, Trouble> {
    match env::var(VARIABLE) {
        Ok(token) => Ok(Some(token).filter(|token| !token.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        // Not the error's own text, which shows the value.
        Err(env::VarError::NotUnicode(_)) => {
            Err(Trouble::usage(format!("{VARIABLE} holds something that is no text")))
        }
    }
}

/// Does what takes no session where the token is set, and warns where it is no use.
///
/// # Errors
/// It is no text, or stdout can't be written to.
pub fn answer(args: &Args) -> Result<Option<Exit>, Trouble> {
    let Some(token) = token()? else {
        return Ok(None);
    };
    let json = args.global.json;
    match args.command {
        Command::Token if json => {
            print(json!({ "access_token": token, "expires_at": null }))?;
        }
        Command::Token => print(token)?,
        Command::Status if json => print(json!({ "logged_in": true, "source": VARIABLE }))?,
        Command::Status => print(format_args!("the token comes from {VARIABLE}"))?,
        Command::Login(_) | Command::Logout(_) => {
            eprintln!("cli: {VARIABLE} is set: while it is, its token is used, not the profile's");
            return Ok(None);
        }
        Command::Call(_)
        | Command::Accounts { .. }
        | Command::Doctor
        | Command::Completions { .. } => return Ok(None),
    }
    Ok(Some(Exit::Success))
}

/// A session of `token`, which ends with the program.
///
/// # Errors
/// The token can't be sent, or an origin is none.
pub async fn account(
    global: &Global,
    token: String,
    origins: Vec<String>,
) -> Result<Account, Trouble> {
    let mut builder = Session::builder(SERVICE, Bare).store(MemoryStore::new());
    for origin in &origins {
        builder = builder.origin(origin);
    }
    if let Some(directory) = &global.state_dir {
        builder = builder.state_dir(directory);
    }
    let session = builder.build()?;
    session.log_in(TokenResponse::new(token)).await?;
    let source = Source::Environment;
    Ok(Account { name: global.profile.clone(), session, origins, source })
}

pub const VARIABLE: &str = "REAUTH_TOKEN";

/// A bare access token can't be refreshed.
struct Bare;

#[async_trait]
impl TokenEndpoint for Bare {
    fn id(&self) -> String {
        VARIABLE.to_owned()
    }

    async fn refresh(
        &self,
        _http: &reqwest::Client,
        _token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        // Never called, as there is no refresh token.
        Err(RefreshError::misconfigured("a bare access token can't be refreshed"))
    }
}
