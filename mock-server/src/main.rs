//! The mock server as a command.

#![forbid(unsafe_code)]

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use mock_server::MockServer;

use crate::cli::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            eprintln!("mock-server: {} is in use; pick another with --addr", args.addr);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("mock-server: cannot serve on {}: {error}", args.addr);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // Before the greeting: whoever reads it may send the signal at once.
    let stopped = runtime.block_on(async { stop_signal() })?;
    let server = args.builder().start()?;
    // Whoever closed the pipe does not want to read it.
    let _ = greet(&server, args);
    runtime.block_on(stopped);
    eprintln!("\nstopped");
    Ok(())
}

fn greet(server: &MockServer, args: &Args) -> io::Result<()> {
    let (origin, token) = (server.origin(), server.token_url());
    let client = args.curl_client();
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {origin}  (routes: curl {origin}/)")?;
    writeln!(out)?;
    writeln!(out, "issuer:   {origin}  (its login page takes any user name)")?;
    writeln!(out, "log in:   curl {client}{token} -d grant_type=password -d username=alice")?;
    writeln!(out, "call:     curl {origin}/api/things -H 'Authorization: Bearer ACCESS_TOKEN'")?;
    writeln!(
        out,
        "refresh:  curl {client}{token} -d grant_type=refresh_token -d refresh_token=REFRESH_TOKEN"
    )?;
    writeln!(out, "expire:   curl -X POST {origin}/control/expire-access")?;
    writeln!(out, "watch:    curl {origin}/control/history")?;
    writeln!(out)?;
    for user in &args.user {
        let issued = server.log_in(user);
        writeln!(out, "logged {user} in: family {}", issued.family)?;
        if args.print_tokens {
            writeln!(out, "{}", issued.json())?;
        }
    }
    out.flush()
}

/// Resolves at Ctrl-C, or when a supervisor asks to end.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        // Without a way to hear of Ctrl-C there is only being killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
