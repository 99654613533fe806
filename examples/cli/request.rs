//! The request of a `call`, and what its answer means.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{LoginRequired, RefreshWithheld, StepUpRequired, redirect_policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::account::{Account, Source};
use crate::args::Call;
use crate::tally::Outcome;
use crate::trouble::{Kind, Trouble};

/// What to send, any number of times.
#[derive(Clone)]
pub struct Plan {
    client: ClientWithMiddleware,
    method: Method,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Vec<u8>>,
    timeout: Option<Duration>,
    /// With nothing but an access token, a login is all that helps against a 401.
    is_bare: bool,
}

impl Plan {
    /// # Errors
    /// A header is none, or the body can't be read.
    pub async fn new(account: &Account, call: &Call) -> Result<Self, Trouble> {
        let body = match &call.data {
            Some(data) => Some(read(data).await?),
            None => None,
        };
        let default = if body.is_some() { Method::POST } else { Method::GET };
        // First: the keychain is read while the client is set up.
        let middleware = account.session.middleware();
        let http = reqwest::Client::builder().redirect(redirect_policy()).build()?;
        Ok(Self {
            client: ClientBuilder::new(http).with(middleware).build(),
            method: call.method.clone().unwrap_or(default),
            url: call.url.clone(),
            headers: call.header.iter().map(|text| header(text)).collect::<Result<_, _>>()?,
            body,
            timeout: call.timeout,
            is_bare: matches!(account.source, Source::Environment),
        })
    }

    /// Sends it, and drops the answer's body once it is there.
    pub async fn send(&self) -> Outcome {
        let work = async {
            let mut response = self.response().await?;
            let outcome = self.judge(&response);
            while response.chunk().await?.is_some() {}
            Ok::<_, Trouble>(outcome)
        };
        work.await.unwrap_or_else(Outcome::Failed)
    }

    /// Sends it, and passes the answer's body on to stdout as it comes.
    ///
    /// # Errors
    /// Stdout can't be written to.
    pub async fn send_and_show(&self) -> Result<Outcome, Trouble> {
        let mut response = match self.response().await {
            Ok(response) => response,
            Err(trouble) => return Ok(trouble.into()),
        };
        let outcome = self.judge(&response);
        let not_written = |error| Trouble::other("could not write to stdout", error);
        let mut stdout = tokio::io::stdout();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => stdout.write_all(&chunk).await.map_err(not_written)?,
                Ok(None) => break,
                Err(error) => return Ok(Trouble::from(error).into()),
            }
        }
        stdout.flush().await.map_err(not_written)?;
        Ok(outcome)
    }

    async fn response(&self) -> Result<Response, Trouble> {
        let mut request = self.client.request(self.method.clone(), self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        Ok(request.send().await?)
    }

    fn judge(&self, response: &Response) -> Outcome {
        let status = response.status();
        if status.as_u16() < 400 {
            return Outcome::Answered(status, None);
        }
        let marks = response.extensions();
        let trouble = if marks.get::<StepUpRequired>().is_some() {
            Trouble::new(Kind::LoginRequired, format!("{status}: a stronger login is needed here"))
        } else if marks.get::<LoginRequired>().is_some()
            || self.is_bare && status == StatusCode::UNAUTHORIZED
        {
            let why = "the access token is refused, and can't be refreshed";
            Trouble::new(Kind::LoginRequired, format!("{status}: {why}"))
        } else if let Some(withheld) = marks.get::<RefreshWithheld>() {
            let seconds = withheld.retry_after().as_secs_f64().ceil();
            Trouble::new(Kind::Other, format!("{status}: new access tokens are refused too"))
                .with_advice(format!("the next one is fetched in {seconds} s at the earliest"))
        } else {
            Trouble::new(Kind::Other, status.to_string())
        };
        Outcome::Answered(status, Some(trouble))
    }
}

/// The bytes of `--data`.
async fn read(data: &str) -> Result<Vec<u8>, Trouble> {
    if data == "-" {
        let mut bytes = Vec::new();
        (tokio::io::stdin().read_to_end(&mut bytes).await)
            .map_err(|error| Trouble::unusable("could not read stdin", error))?;
        return Ok(bytes);
    }
    let Some(path) = data.strip_prefix('@') else {
        return Ok(data.as_bytes().to_vec());
    };
    tokio::fs::read(path)
        .await
        .map_err(|error| Trouble::unusable(&format!("could not read {path}"), error))
}

/// The messages have no values in them: headers may hold secrets.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), Trouble> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(Trouble::usage("a --header has no colon: write it as 'Name: value'"));
    };
    let parsed = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| Trouble::usage(format!("{name:?} is no name for a --header")))?;
    let value = HeaderValue::from_str(value.trim())
        .map_err(|_| Trouble::usage(format!("the value of --header {name:?} can't be sent")))?;
    Ok((parsed, value))
}
