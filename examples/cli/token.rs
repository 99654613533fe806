//! `token`: the access token, for other programs.

use serde_json::json;

use crate::account::Account;
use crate::args::Global;
use crate::exit::Exit;
use crate::output::print;
use crate::status::unix_seconds;
use crate::trouble::Trouble;

/// # Errors
/// Nobody is logged in, or a refresh that was needed failed.
pub async fn run(global: &Global, account: &Account) -> Result<Exit, Trouble> {
    let token = account.session.access_token().await?;
    if global.json {
        let expires_at = token.expires_at().map(unix_seconds);
        print(json!({ "access_token": token.secret(), "expires_at": expires_at }))?;
    } else {
        print(token.secret())?;
    }
    Ok(Exit::Success)
}
