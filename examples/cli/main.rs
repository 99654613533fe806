//! A command-line program that stays logged in: `cargo run --example cli -- --help`.
//!
//! A start for one of your own. `login` keeps the tokens of a login, `call` sends requests with
//! them, `token`, `status` and `logout` do what they say. In a terminal each, beside
//! `cargo run -p mock-server -- --user alice --print-tokens`:
//!
//! ```sh
//! cli login --tokens-stdin --token-endpoint http://127.0.0.1:8011/token --client-id cli \
//!     --revocation-endpoint http://127.0.0.1:8011/revoke --origin http://127.0.0.1:8011
//! cli call http://127.0.0.1:8011/api/hello
//! ```
//!
//! The modules: `args` (what was asked), `profile` and `tokens` (what is remembered, and where),
//! `environment` (`REAUTH_TOKEN`), `account` (the session of all that), a module for each command, `request`
//! and `tally` (of calls), `trouble` and `exit` (how it ends).

mod account;
mod args;
mod call;
mod environment;
mod exit;
mod login;
mod logout;
mod output;
mod profile;
mod request;
mod status;
mod tally;
mod token;
mod tokens;
mod trouble;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal;

use crate::account::Account;
use crate::args::{Args, Command};
use crate::exit::Exit;
use crate::trouble::Trouble;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return args::refuse(&error),
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Trouble::other("could not start", error).tell(args.global.json).into();
        }
    };
    let exit = match runtime.block_on(run(&args)) {
        Ok(exit) => exit,
        Err(trouble) => trouble.tell(args.global.json),
    };
    // The session has been waited for. What may be left is a read from a terminal, or a write to
    // a pipe that nobody reads: waiting for that could take for ever.
    runtime.shutdown_background();
    exit.into()
}

/// Runs the command, until its end or Ctrl-C. In both cases the session is waited for.
///
/// # Errors
/// There is no account to run it for.
async fn run(args: &Args) -> Result<Exit, Trouble> {
    let global = &args.global;
    if let Some(exit) = environment::answer(args)? {
        return Ok(exit);
    }
    let account = match &args.command {
        Command::Login(login) => login::account(global, login)?,
        Command::Call(call) => call::account(global, call).await?,
        Command::Token => Account::open_to_use(global)?,
        Command::Status | Command::Logout => Account::open(global)?,
    };
    let work = async {
        match &args.command {
            Command::Login(_) => login::run(global, &account).await,
            Command::Call(call) => call::run(global, &account, call).await,
            Command::Token => token::run(global, &account).await,
            Command::Status => status::run(global, &account).await,
            Command::Logout => logout::run(global, &account).await,
        }
    };
    let result = match &args.command {
        // Ctrl-C ends it where it stands: tokens without their profile would be of no use.
        Command::Login(_) => work.await,
        _ => tokio::select! {
            // In this order, so that Ctrl-C is heard before the first request is sent.
            biased;
            _ = signal::ctrl_c() => Err(Trouble::interrupted()),
            result = work => result,
        },
    };
    // Told first: the wait may take a while.
    let exit = match result {
        Ok(exit) => exit,
        Err(trouble) => account.advise(trouble).tell(global.json),
    };
    // A refresh that was sent is waited for, so that its tokens are kept.
    account.session.drain().await;
    Ok(exit)
}
