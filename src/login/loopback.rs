//! The redirect URI of a login: a server on this machine that lives as long as the login does
//! (RFC 8252 §7.3).

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use oauth2::RedirectUrl;
use reqwest::Url;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use url::Host;

use super::page::Page;
use crate::error::{Error, Unfinished};

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Loopback {
    listener: TcpListener,
    /// With the port that it has.
    pub(super) uri: RedirectUrl,
}

/// The browser has come with an answer, and waits for a page.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) query: Vec<(String, String)>,
    page: oneshot::Sender<Page>,
}

impl Visit {
    pub(super) fn show(self, page: Page) {
        // An error: the browser has gone.
        let _ = self.page.send(page);
    }
}

impl Loopback {
    /// Where `uri` says; port 0 stands for a free one.
    ///
    /// # Errors
    /// The URI is not one of this machine, or its port is in use.
    pub(super) async fn at(uri: &str) -> Result<Self, Error> {
        // Spaces around it are no part of it.
        let uri = uri.trim();
        let (url, ip) = check(uri).map_err(|why| {
            Error::configuration(format!("the redirect URI {} {why}", crate::origin::shown(uri)))
        })?;
        let port = url.port().unwrap_or(80);
        let listener = TcpListener::bind(SocketAddr::new(ip, port)).await.map_err(|error| {
            let what = format!("nothing can listen at {ip} port {port} for the browser's answer");
            Error::unfinished(Unfinished::Failed(what), Some(error.into()))
        })?;
        // It has one, as it listens.
        let port = listener.local_addr().map_or(port, |addr| addr.port());
        Ok(Self { listener, uri: told(uri, url, port) })
    }

    /// At a free port, by IPv4 or else by IPv6.
    pub(super) async fn anywhere() -> Result<Self, Error> {
        match Self::at("http://127.0.0.1:0/callback").await {
            Err(_) => Self::at("http://[::1]:0/callback").await,
            listening => listening,
        }
    }

    /// Shows each visit, and the page that it is given for it, until `through` is.
    pub(super) async fn until<T>(
        self,
        visits: mpsc::Sender<Visit>,
        through: impl Future<Output = T>,
    ) -> T {
        let mut connections = JoinSet::new();
        let (end, ended) = watch::channel(());
        let mut through = pin!(through);
        let result = loop {
            tokio::select! {
                result = &mut through => break result,
                accepted = self.listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let (url, visits) = (self.uri.url().clone(), visits.clone());
                        connections.spawn(serve(stream, url, visits, ended.clone()));
                    } else {
                        // Too many files are open, maybe: soon there may be fewer.
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        };
        drop((self.listener, end));
        // The last page is on its way.
        let _ = tokio::time::timeout(LAST_PAGE, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        result
    }
}

async fn serve(
    stream: TcpStream,
    url: Url,
    visits: mpsc::Sender<Visit>,
    mut ended: watch::Receiver<()>,
) {
    let is_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        is_asked.store(true, Ordering::Relaxed);
        answer(request, &url, &visits)
    });
    let mut server = http1::Builder::new();
    // One page is all that a browser gets: then nothing is left to wait for.
    server.keep_alive(false);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // An error: the browser has gone.
        _ = &mut connection => return,
        _ = ended.changed() => {}
    }
    // Browsers open connections that they may never use.
    if is_asked.load(Ordering::Relaxed) {
        let _ = connection.await;
    }
}

async fn answer(
    request: Request<Incoming>,
    url: &Url,
    visits: &mpsc::Sender<Visit>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = match request.uri().query() {
        Some(query) if request.method() == Method::GET && request.uri().path() == url.path() => {
            let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            let (page, shown) = oneshot::channel();
            // An error: the login is through already.
            let _ = visits.send(Visit { query, page }).await;
            shown.await.unwrap_or(Page::Stale)
        }
        _ => Page::NotFound,
    };
    Ok(page.response())
}

fn check(uri: &str) -> Result<(Url, IpAddr), &'static str> {
    let url = Url::parse(uri).map_err(|_| "is no URL")?;
    let ip: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        Some(Host::Domain("localhost")) => {
            return Err("must name an address, such as 127.0.0.1, not localhost (RFC 8252 §8.3)");
        }
        _ => return Err("must be of this machine, such as http://127.0.0.1:8400/callback"),
    };
    if ip != Ipv4Addr::LOCALHOST && ip != Ipv6Addr::LOCALHOST {
        return Err("must be of this machine, such as http://127.0.0.1:8400/callback");
    }
    if url.scheme() != "http" || url.query().is_some() || url.fragment().is_some() {
        return Err("must be plain http, without query and fragment");
    }
    Ok((url, ip))
}

/// `uri` as the server is told it: letter by letter, as servers compare it with what is registered
/// (RFC 6749 §3.1.2.3). A URL says a path and leaves out the port 80, whatever was given.
fn told(uri: &str, mut url: Url, port: u16) -> RedirectUrl {
    let text = match url.port() {
        Some(0) => with_port(uri, port),
        _ => Some(uri.to_owned()),
    };
    // Fails only for URLs without a host.
    let _ = url.set_port(Some(port));
    let told = text.and_then(|text| RedirectUrl::new(text).ok());
    // What is no URL by the book is told as it was understood.
    told.filter(|told| *told.url() == url).unwrap_or_else(|| RedirectUrl::from_url(url))
}

/// `uri` with another port in place of its own.
fn with_port(uri: &str, port: u16) -> Option<String> {
    let (scheme, rest) = uri.split_once("//")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, _) = authority.rsplit_once(':')?;
    Some(format!("{scheme}//{host}:{port}{path}"))
}

const AGAIN: Duration = Duration::from_millis(100);

/// It goes to this machine.
const LAST_PAGE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_is_plain_http_to_a_loopback_address() {
        for (uri, ok) in [
            ("http://127.0.0.1:0/callback", true),
            ("http://[::1]:8400/", true),
            ("http://127.0.0.1", true),
            ("http://localhost:8400/callback", false),
            ("http://0.0.0.0:8400/", false),
            ("http://192.168.0.7:8400/", false),
            ("https://127.0.0.1:8400/", false),
            ("http://127.0.0.1:8400/?a=b", false),
            ("http://127.0.0.1:8400/#a", false),
            ("myapp:/callback", false),
            ("callback", false),
        ] {
            assert_eq!(check(uri).is_ok(), ok, "{uri}");
        }
    }

    #[test]
    fn of_a_redirect_uri_only_the_port_0_is_told_otherwise_than_it_was_given() {
        for (uri, expected) in [
            ("http://127.0.0.1:8400", "http://127.0.0.1:8400"),
            ("http://127.0.0.1:8400/", "http://127.0.0.1:8400/"),
            ("http://127.0.0.1", "http://127.0.0.1"),
            ("http://127.0.0.1:80", "http://127.0.0.1:80"),
            ("http://[0:0:0:0:0:0:0:1]:80/a/../b", "http://[0:0:0:0:0:0:0:1]:80/a/../b"),
            ("http://127.0.0.1:0", "http://127.0.0.1:7"),
            ("http://127.0.0.1:0/", "http://127.0.0.1:7/"),
            ("HTTP://[0:0:0:0:0:0:0:1]:00/a:0/%7e", "HTTP://[0:0:0:0:0:0:0:1]:7/a:0/%7e"),
            // No URL by the book.
            ("http:127.0.0.1:0", "http://127.0.0.1:7/"),
            ("http:///127.0.0.1:0", "http://127.0.0.1:7/"),
        ] {
            let (url, _) = check(uri).unwrap();
            let port = url.port().unwrap_or(80);
            let told = told(uri, url, if port == 0 { 7 } else { port });
            assert_eq!(told.as_str(), expected);
        }
    }
}
