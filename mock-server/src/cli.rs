//! The arguments of the command.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use mock_server::{Builder, ExpiresIn, Metadata, MockServer, ResponseIss, Reuse};

/// An OAuth 2 authorization server and a protected API to test clients against.
///
/// Times are written like 500ms, 30s, 5m, 2h or 1d.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:8011")]
    pub(crate) addr: SocketAddr,

    /// How long an access token is accepted
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    access_ttl: Duration,

    /// How long a refresh token can be used
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = time)]
    refresh_ttl: Duration,

    /// What responses say as expires_in: truthful, absent, or any JSON value
    #[arg(long, value_name = "WHAT", default_value = "truthful", value_parser = expires_in)]
    expires_in: ExpiresIn,

    /// Add refresh_expires_in to responses
    #[arg(long)]
    refresh_expires_in: bool,

    /// Keep the refresh token valid instead of replacing it at each refresh
    #[arg(long)]
    no_rotation: bool,

    /// How long a spent refresh token gets its successors once more
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    grace: Duration,

    /// What happens when a spent refresh token is presented
    #[arg(long, value_enum, default_value = "revoke-family")]
    reuse: OnReuse,

    /// At most so many refreshes in so much time, such as 10/1m
    #[arg(long, value_name = "MAX/TIME", value_parser = rate)]
    rate_limit: Option<(u32, Duration)>,

    /// Bind each session to the value of this header at login (repeatable)
    #[arg(long, value_name = "HEADER", value_parser = header)]
    bind_context: Vec<String>,

    /// Accept only this client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// The secret of that client; none for a public one
    #[arg(long, value_name = "SECRET", requires = "client_id")]
    client_secret: Option<String>,

    /// Which documents about itself it has
    #[arg(long, value_enum, default_value = "both")]
    metadata: Documents,

    /// What the login page's answer says as iss: right, absent, missing (although announced), or
    /// any text
    #[arg(long, value_name = "WHAT", default_value = "right", value_parser = response_iss)]
    response_iss: ResponseIss,

    /// How long a login on another device may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    device_ttl: Duration,

    /// How long a client has to wait between two looks at it, in whole seconds; 0s says nothing,
    /// which means 5s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    device_interval: Duration,

    /// Log this user in at the start, bound to no context (repeatable)
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Vec<String>,

    /// Print the token response of each --user
    #[arg(long, requires = "user")]
    pub(crate) print_tokens: bool,

    /// Do not log requests
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnReuse {
    RevokeFamily,
    RevokeUser,
    Ignore,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Documents {
    Both,
    Oauth,
    Oidc,
    Neither,
}

impl Args {
    pub(crate) fn builder(&self) -> Builder {
        let mut builder = MockServer::builder()
            .addr(self.addr)
            .access_ttl(self.access_ttl)
            .refresh_ttl(self.refresh_ttl)
            .expires_in(self.expires_in.clone())
            .refresh_expires_in(self.refresh_expires_in)
            .rotation(!self.no_rotation)
            .grace(self.grace)
            .reuse(match self.reuse {
                OnReuse::RevokeFamily => Reuse::RevokeFamily,
                OnReuse::RevokeUser => Reuse::RevokeUser,
                OnReuse::Ignore => Reuse::Ignore,
            })
            .metadata(match self.metadata {
                Documents::Both => Metadata::Both,
                Documents::Oauth => Metadata::OAuth,
                Documents::Oidc => Metadata::Oidc,
                Documents::Neither => Metadata::Neither,
            })
            .response_iss(self.response_iss.clone())
            .device_ttl(self.device_ttl)
            .device_interval((!self.device_interval.is_zero()).then_some(self.device_interval))
            .bind_context(&self.bind_context);
        if let Some((max, per)) = self.rate_limit {
            builder = builder.rate_limit(max, per);
        }
        if let Some(id) = &self.client_id {
            builder = builder.client(id, self.client_secret.as_deref());
        }
        if !self.quiet {
            builder = builder.log(|line| eprintln!("{line}"));
        }
        builder
    }

    /// What curl needs to authenticate as the client, with a space at the end.
    pub(crate) fn curl_client(&self) -> String {
        match (&self.client_id, &self.client_secret) {
            (Some(id), Some(_)) => format!("-u '{id}:SECRET' "),
            (Some(id), None) => format!("-u '{id}:' "),
            (None, _) => String::new(),
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 60.0 * 60.0,
        "d" => 24.0 * 60.0 * 60.0,
        "" => return Err("a unit is missing: ms, s, m, h or d".into()),
        unit => return Err(format!("{unit} is not one of ms, s, m, h, d")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<(u32, Duration), String> {
    let (max, per) = text.split_once('/').ok_or("write it like 10/1m")?;
    let max = max.parse().map_err(|_| format!("{max:?} is no number"))?;
    Ok((max, time(per)?))
}

fn expires_in(text: &str) -> Result<ExpiresIn, String> {
    match text {
        "truthful" => Ok(ExpiresIn::Truthful),
        "absent" => Ok(ExpiresIn::Absent),
        json => serde_json::from_str(json)
            .map(ExpiresIn::Value)
            .map_err(|_| "neither truthful nor absent, and no JSON either".into()),
    }
}

fn response_iss(text: &str) -> Result<ResponseIss, Infallible> {
    Ok(match text {
        "right" => ResponseIss::Right,
        "absent" => ResponseIss::Absent,
        "missing" => ResponseIss::Missing,
        text => ResponseIss::Value(text.to_owned()),
    })
}

fn header(text: &str) -> Result<String, String> {
    match text.parse::<http::HeaderName>() {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err("no header has such a name".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(time("1d"), Ok(Duration::from_secs(86400)));
        for wrong in ["", "5", "s", "-1s", "5 parsecs", "1e999d", "é"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_number_per_time() {
        assert_eq!(rate("10/1m"), Ok((10, Duration::from_secs(60))));
        assert!(rate("10").is_err());
        assert!(rate("ten/1m").is_err());
    }

    #[test]
    fn expires_in_may_be_any_json() {
        assert_eq!(expires_in("absent"), Ok(ExpiresIn::Absent));
        assert_eq!(expires_in("\"60\""), Ok(ExpiresIn::Value("60".into())));
        assert!(expires_in("soon").is_err());
    }

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
