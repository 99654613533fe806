//! `status`: how the login stands.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::account::{Account, Source};
use crate::args::Global;
use crate::exit::Exit;
use crate::output::print;
use crate::trouble::Trouble;

/// # Errors
/// The store can't be read.
pub async fn run(global: &Global, account: &Account) -> Result<Exit, Trouble> {
    let status = account.session.status().await?;
    if global.json {
        let profile = match &account.source {
            Source::Profile(profile) => Some(&**profile),
            Source::Environment => None,
        };
        print(json!({
            "logged_in": status.is_logged_in(),
            "source": "profile",
            "profile": account.name.as_str(),
            "account": status.account(),
            "store": status.store(),
            "issuer": profile.and_then(|profile| profile.issuer.as_ref()),
            "token_endpoint": profile.and_then(|profile| profile.token_endpoint.as_ref()),
            "client_id": profile.map(|profile| &profile.client_id),
            "origins": account.origins,
            "received_at": status.received_at().map(unix_seconds),
            "expires_at": status.expires_at().map(unix_seconds),
            "refreshes": status.refreshes(),
            "has_refresh_token": status.has_refresh_token(),
            "received_by": status.received_by(),
            "lock": status.lock_file(),
            "unanswered_since": status.unanswered_since().map(unix_seconds),
            "journal_waiting": status.is_journal_waiting(),
            "failed_at": status.failed_at().map(unix_seconds),
            "cooldown_ms": status.cooldown().map(|cooldown| cooldown.as_millis()),
        }))?;
    } else {
        print(&status)?;
        print(format_args!("the token goes to {}", account.origins.join(", ")))?;
    }
    Ok(if status.is_logged_in() { Exit::Success } else { Exit::LoginNeeded })
}

/// A time before 1970 is a clock that was never set.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
