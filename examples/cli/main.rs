//! A command-line program that stays logged in: `cargo run --example cli -- --help`.
//!
//! A start for one of your own. `login` brings the tokens of a login, in the browser, on another
//! device or from elsewhere; `call` sends requests with them; `token`, `status`, `logout` and
//! `accounts` do what they say, and `doctor` finds out why something doesn't. In a terminal each:
//!
//! ```sh
//! cargo run -p mock-server
//! cli login --browser --issuer http://127.0.0.1:8011 --client-id cli --origin http://127.0.0.1:8011
//! cli call http://127.0.0.1:8011/api/hello
//! ```
//!
//! The modules: `args` (what was asked), `profile` and `tokens` (what is remembered, and where),
//! `environment` (`REAUTH_TOKEN`), `account` (the session of all that), a module for each command,
//! `request` and `tally` (of calls), `trouble` and `exit` (how it ends).

mod account;
mod accounts;
mod args;
mod call;
mod doctor;
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

use clap::{CommandFactory, Parser};
use tokio::runtime::Runtime;
use tokio::signal;

use crate::account::Account;
use crate::args::{Args, Command, Logout};
use crate::exit::Exit;
use crate::trouble::Trouble;

fn main() -> ExitCode {
    let mut args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return args::refuse(&error),
    };
    if args.command.is_about_a_profile()
        && let Err(trouble) = args.global.choose()
    {
        return trouble.tell(args.global.json).into();
    }
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

/// Runs the command, until its end or Ctrl-C. In both cases a session that is used is waited for:
/// usually not at all, at most a minute, and no second Ctrl-C cuts that off.
///
/// # Errors
/// There is no account to run it for.
async fn run(args: &Args) -> Result<Exit, Trouble> {
    let global = &args.global;
    if let Some(exit) = environment::answer(args)? {
        return Ok(exit);
    }
    // What is about no account, or about all.
    match &args.command {
        Command::Accounts { choice } => return accounts::run(global, choice.as_ref()).await,
        Command::Doctor => return doctor::run(global).await,
        Command::Logout(Logout { all: true }) => return logout::run_all(global).await,
        Command::Completions { shell } => return completions(*shell),
        _ => {}
    }
    let account = match &args.command {
        Command::Login(login) => login::account(global, login)?,
        Command::Call(call) => call::account(global, call).await?,
        Command::Token => Account::open_to_use(global)?,
        _ => Account::open(global)?,
    };
    let work = async {
        match &args.command {
            Command::Login(login) => login::run(global, &account, login).await,
            Command::Call(call) => call::run(global, &account, call).await,
            Command::Token => token::run(global, &account).await,
            Command::Logout(_) => logout::run(global, &account).await,
            _ => status::run(global, &account).await,
        }
    };
    let result = match &args.command {
        // It listens for Ctrl-C itself: tokens without their profile would be of no use.
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

/// # Errors
/// Stdout can't be written to.
fn completions(shell: clap_complete::Shell) -> Result<Exit, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "cli", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Success)
}
