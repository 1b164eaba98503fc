//! The files of the pictures of a request. Input: a data URL, or an address where that is allowed. Output: the bytes.
//!
//! A client chooses the address, so the server must not reach for it what the client cannot reach itself: this machine and
//! its network. The host is resolved once, its addresses are checked, and only these are connected to. A name cannot change
//! in between (DNS rebinding). Each redirect is checked again, and must stay at its host.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use ureq::{
    Agent, Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};
use url::Url;

use crate::job::Problem;

/// Most redirects.
const REDIRECTS: usize = 3;
/// Longest address, bytes.
const LONGEST: usize = 8192;
/// Most bytes of the headers of a response.
const MOST_HEADERS: usize = 32 << 10;

/// What may be downloaded.
#[derive(Clone, Debug)]
pub struct RemoteRules {
    /// Whether anything.
    pub allowed: bool,
    /// Most bytes of a picture.
    pub most_bytes: u64,
    /// Longest time of a download, with its redirects.
    pub time: Duration,
    /// Whether an address may be connected to. Tests allow loopback.
    pub(crate) may_connect: fn(IpAddr) -> bool,
}

impl RemoteRules {
    /// Rules for public addresses, if `allowed`, and 20 seconds.
    pub fn new(allowed: bool, most_bytes: u64) -> Self {
        Self { allowed, most_bytes, time: Duration::from_secs(20), may_connect: |ip| is_public(ip) && !is_own(ip) }
    }
}

/// The bytes of a picture. It blocks: not for an async task.
///
/// # Errors
/// [`Problem`] with status 400.
pub fn fetch(url: &str, rules: &RemoteRules) -> Result<Vec<u8>, Problem> {
    if let Some(bytes) = fovea_openai::data_url(url) {
        return bytes.map_err(Problem::from);
    }
    let mut address = parse(url)?;
    if !rules.allowed {
        return Err(refused(
            "expected a picture as a data URL (data:image/png;base64,...), got an address; this server downloads nothing, \
             unless it is started with --allow-remote-images",
        ));
    }
    let end = Instant::now() + rules.time;
    for _ in 0..=REDIRECTS {
        let left = end.saturating_duration_since(Instant::now());
        let agent = agent(rules, left.max(Duration::from_millis(1)));
        let response = agent.get(address.as_str()).call().map_err(|why| failed(&address, &why, rules))?;
        let status = response.status();
        if status.is_redirection() {
            let location = response.headers().get("location").and_then(|location| location.to_str().ok());
            address = redirect(&address, location.unwrap_or_default())?;
            continue;
        }
        if !status.is_success() {
            return Err(refused(format!("expected a picture from {}, got the status {status}", host(&address))));
        }
        let body = response.into_body().into_with_config().limit(rules.most_bytes);
        return body.read_to_vec().map_err(|why| failed(&address, &why, rules));
    }
    Err(refused(format!("expected at most {REDIRECTS} redirects from {}, got more", host(&address))))
}

fn refused(message: impl Into<String>) -> Problem {
    Problem::request("image_url", Some("messages"), message)
}

/// Host and port, for messages: the rest of an address can contain secrets.
fn host(address: &Url) -> String {
    let host = address.host_str().unwrap_or_default();
    address.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An agent that connects to allowed addresses only. It serves one request, so no connection is used twice.
fn agent(rules: &RemoteRules, time: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // A proxy would resolve the name itself, without the check.
        .proxy(None)
        // A compressed response could be larger than its limit.
        .accept_encoding("identity")
        .accept("image/*")
        .user_agent(concat!("fovea/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(MOST_HEADERS)
        .timeout_global(Some(time))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Checked { may_connect: rules.may_connect })
}

/// Resolves names to allowed addresses.
#[derive(Debug)]
struct Checked {
    may_connect: fn(IpAddr) -> bool,
}

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        // One error for both: a client must not learn which names of the private network exist.
        let found = DefaultResolver::default().resolve(uri, config, timeout).map_err(|why| match why {
            Error::Timeout(which) => Error::Timeout(which),
            _ => Error::HostNotFound,
        })?;
        if found.iter().all(|at| (self.may_connect)(at.ip())) { Ok(found) } else { Err(Error::HostNotFound) }
    }
}

fn failed(address: &Url, why: &Error, rules: &RemoteRules) -> Problem {
    let host = host(address);
    refused(match why {
        // One message for both: a client must not learn which hosts and ports exist.
        Error::HostNotFound | Error::ConnectionFailed | Error::Io(_) => {
            format!("cannot find a public address of {host} that answers; send the picture as a data URL")
        }
        Error::Timeout(_) => {
            format!("expected the picture from {host} in {} s, got no whole one", rules.time.as_secs_f32())
        }
        Error::BodyExceedsLimit(_) => {
            format!("expected a picture of at most {} bytes from {host}, got more", rules.most_bytes)
        }
        _ => format!("cannot download the picture from {host}: {why}"),
    })
}

/// An address that may be requested.
fn parse(text: &str) -> Result<Url, Problem> {
    if text.len() > LONGEST {
        return Err(refused(format!("expected an address of at most {LONGEST} bytes, got {}", text.len())));
    }
    let address = Url::parse(text).map_err(|why| {
        refused(format!(
            "expected a picture as a data URL (data:image/png;base64,...) or an address, got neither ({why})"
        ))
    })?;
    check(address)
}

fn check(mut address: Url) -> Result<Url, Problem> {
    if !matches!(address.scheme(), "http" | "https") || address.host().is_none() {
        // Not the address: a data URL with a mistake would be long.
        let got = address.scheme();
        return Err(refused(format!("expected an address that begins with https://, http:// or data:, got `{got}:`")));
    }
    if !address.username().is_empty() || address.password().is_some() {
        return Err(refused("expected an address without user name and password"));
    }
    // Mail, ssh, DNS and the like are no servers of pictures.
    if !matches!(address.port_or_known_default(), Some(80 | 443 | 1024..)) {
        return Err(refused("expected an address with the port 80, 443, or one from 1024 on"));
    }
    address.set_fragment(None);
    Ok(address)
}

/// Where a redirect leads: to the same host and port, or from http to https with their usual ports.
fn redirect(from: &Url, location: &str) -> Result<Url, Problem> {
    let wrong = |got: &str| refused(format!("expected a redirect to {} only, got one to {got}", host(from)));
    if location.is_empty() || location.len() > LONGEST {
        return Err(wrong("no address"));
    }
    let to = check(from.join(location).map_err(|_| wrong("no address"))?)?;
    let ports = (from.scheme(), from.port(), to.scheme(), to.port());
    let same = from.scheme() == to.scheme() && from.port() == to.port();
    if from.host() == to.host() && (same || ports == ("http", None, "https", None)) {
        return Ok(to);
    }
    Err(wrong(&format!("{}://{}", to.scheme(), host(&to))))
}

/// Whether an address is on the public Internet, by the registries of special addresses (RFC 6890 and IANA).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, d] = ip.octets();
    !matches!(
        (a, b, c, d),
        (0, ..) // this network
            | (10, ..) // private
            | (100, 64..=127, ..) // carrier-grade NAT
            | (127, ..) // loopback
            | (169, 254, ..) // link-local, and the metadata of clouds
            | (172, 16..=31, ..) // private
            | (192, 0, 0 | 2, _) // IETF, documentation
            | (192, 88, 99, _) // 6to4 relays
            | (192, 168, ..) // private
            | (198, 18 | 19, ..) // benchmarks
            | (198, 51, 100, _) // documentation
            | (203, 0, 113, _) // documentation
            | (224..=255, ..) // multicast, reserved, broadcast
            | (168, 63, 129, 16) // Azure's host, in each of its virtual machines
    )
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        // IPv4-mapped, and NAT64: they lead to an IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        // 6to4, the same.
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // IETF: Teredo, benchmarks, ORCHID.
        [0x2001, 0..=0x1ff, ..] => false,
        // Documentation.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // ISATAP: a tunnel to an IPv4 address.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => is_public_v4(v4(high, low)),
        // Global unicast. All else is loopback, unspecified, link-local, unique local, multicast or reserved.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// Whether an address is one of this machine (it then is its own sender) or, of IPv6, of its network. Nothing is sent.
fn is_own(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        // Any port will do.
        socket.connect(SocketAddr::new(ip, 9))?;
        socket.local_addr()
    };
    sender().is_ok_and(|sender: SocketAddr| is_near(sender.ip(), ip))
}

/// Whether two addresses are the same, or of the same /64: machines of one network have public addresses in IPv6.
fn is_near(own: IpAddr, ip: IpAddr) -> bool {
    match (own, ip) {
        (IpAddr::V6(own), IpAddr::V6(ip)) => own.segments()[..4] == ip.segments()[..4],
        _ => own == ip,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Rules that allow loopback.
    fn here() -> RemoteRules {
        RemoteRules { may_connect: |ip| ip.is_loopback(), time: Duration::from_secs(5), ..RemoteRules::new(true, 100) }
    }

    /// A server that gives one response per connection. Returns its address.
    fn server(responses: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for response in responses {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let (mut request, mut part) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => return,
                        Ok(read) => request.extend(&part[..read]),
                    }
                }
                let _ = stream.write_all(response.as_bytes());
            }
        });
        address
    }

    fn response(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
    }

    fn to(location: &str) -> String {
        response("302 Found", &format!("Location: {location}\r\n"), "")
    }

    fn why(result: Result<Vec<u8>, Problem>) -> String {
        let problem = result.expect_err("an error");
        assert_eq!((problem.status, problem.code), (400, "image_url"), "{problem:?}: (got, expected)");
        problem.message
    }

    #[test]
    fn special_addresses_are_refused() {
        for refused in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "168.63.129.16",
            // IPv6: unspecified, loopback, link-local, site-local, unique local, multicast, discard, documentation.
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            // Teredo, ORCHID, IETF, segment routing, the IPv4-compatible form, a local NAT64.
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "5f00::1",
            "::8.8.8.8",
            "::127.0.0.1",
            "64:ff9b:1::8.8.8.8",
            // An IPv4 address inside: mapped, NAT64, 6to4, ISATAP.
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::192.168.1.1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:c0a8:101::",
            "2a00::5efe:10.0.0.1",
            "2a00::200:5efe:127.0.0.1",
        ] {
            assert!(!is_public(refused.parse().expect("an address")), "{refused} must be refused");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.0.1",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.1.1",
            "192.169.1.1",
            "198.17.1.1",
            "198.20.1.1",
            "223.255.255.255",
            "168.63.129.17",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "3ffe::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().expect("an address")), "{public} must be allowed");
        }
        assert!(is_own("127.0.0.1".parse().expect("an address")));
        assert!(is_own("::ffff:127.0.0.1".parse().expect("an address")));
        let near = |own: &str, ip: &str| is_near(own.parse().expect("an address"), ip.parse().expect("an address"));
        assert!(near("2a00:1:2:3::1", "2a00:1:2:3:ffff::9") && near("192.0.2.1", "192.0.2.1"));
        assert!(!near("2a00:1:2:3::1", "2a00:1:2:4::1") && !near("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn only_plain_addresses_are_read() {
        let rules = RemoteRules::new(true, 100);
        for (url, expected) in [
            ("", "got neither"),
            ("picture.png", "got neither"),
            ("file:///etc/passwd", "got `file:`"),
            ("ftp://example.com/a.png", "got `ftp:`"),
            ("gopher://example.com/", "got `gopher:`"),
            ("http://user@example.com/a.png", "without user name and password"),
            ("https://:secret@example.com/a.png", "without user name and password"),
            ("http://", "got neither"),
            ("http://example.com:99999/", "got neither"),
            ("http://example.com:25/", "the port 80, 443"),
            ("https://example.com:1023/", "the port 80, 443"),
            // Each is 127.0.0.1 or its network.
            ("http://127.0.0.1/a.png", "cannot find a public address"),
            ("http://2130706433/a.png", "cannot find a public address"),
            ("http://0x7f.1/a.png", "cannot find a public address"),
            ("http://0177.0.0.1/a.png", "cannot find a public address"),
            ("http://[::1]:8080/a.png", "cannot find a public address"),
            ("http://[::ffff:127.0.0.1]/a.png", "cannot find a public address"),
            ("http://169.254.169.254/latest/meta-data", "cannot find a public address"),
            ("http://[fd00::1]/", "cannot find a public address"),
        ] {
            let got = why(fetch(url, &rules));
            assert!(got.contains(expected), "{url}: expected {expected:?}, got {got:?}");
        }
        let long = format!("http://example.com/{}", "a".repeat(LONGEST));
        assert!(why(fetch(&long, &rules)).contains("at most 8192 bytes"));
        let off = why(fetch("https://example.com/a.png", &RemoteRules::new(false, 100)));
        assert!(off.contains("--allow-remote-images"), "got {off:?}");
    }

    #[test]
    fn loopback_is_not_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"] {
            let got = why(fetch(&format!("http://{host}:{port}/a.png"), &RemoteRules::new(true, 100)));
            assert!(got.contains("cannot find a public address"), "{host}: got {got:?}");
        }
        listener.set_nonblocking(true).expect("a socket that does not block");
        assert!(listener.accept().is_err(), "expected no connection");
    }

    #[test]
    fn a_picture_is_downloaded_also_after_redirects() {
        let address = server(vec![to("/b.png"), to("c.png?x=1"), response("200 OK", "", "picture")]);
        assert_eq!(fetch(&format!("{address}/a.png#part"), &here()), Ok(b"picture".to_vec()), "(got, expected)");
    }

    #[test]
    fn other_responses_are_errors() {
        let large = "x".repeat(101);
        for (responses, expected) in [
            (vec![response("404 Not Found", "", "no")], "got the status 404"),
            (vec![response("200 OK", "", &large)], "at most 100 bytes"),
            (vec![format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{large}")], "at most 100 bytes"),
            (vec![to("http://localhost:8080/")], "expected a redirect to 127.0.0.1"),
            (vec![response("302 Found", "", "")], "got one to no address"),
            (vec![to("/a"), to("/b"), to("/c"), to("/d")], "at most 3 redirects"),
            (vec!["nonsense\r\n\r\n".to_owned()], "cannot download"),
        ] {
            let got = why(fetch(&server(responses), &here()));
            assert!(got.contains(expected), "expected {expected:?}, got {got:?}");
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let rules = RemoteRules { time: Duration::from_millis(200), ..here() };
        let begin = Instant::now();
        assert!(why(fetch(&address, &rules)).contains("got no whole one"));
        assert!(begin.elapsed() < Duration::from_secs(4), "it took {:?}", begin.elapsed());
    }

    #[test]
    fn redirects_stay_at_their_host() {
        let from = |from: &str, location: &str| {
            redirect(&Url::parse(from).expect("an address"), location).map(String::from).map_err(|why| why.message)
        };
        for (address, location, expected) in [
            ("http://a.example/x/y", "z", "http://a.example/x/z"),
            ("http://a.example/x/y", "/z?q#part", "http://a.example/z?q"),
            ("http://a.example/", "https://a.example/", "https://a.example/"),
            ("https://a.example:8443/", "//A.example:8443/b", "https://a.example:8443/b"),
        ] {
            assert_eq!(from(address, location).as_deref(), Ok(expected), "{address} to {location}: (got, expected)");
        }
        for (address, location) in [
            ("http://a.example/", "http://b.example/"),
            ("http://a.example/", "http://a.example.b.example/"),
            ("http://a.example/", "http://a.example:8080/"),
            ("http://a.example:8080/", "https://a.example/"),
            ("https://a.example/", "http://a.example/"),
            ("https://a.example/", "//127.0.0.1/"),
            ("https://a.example/", "file:///etc/passwd"),
            ("https://a.example/", "https://user@a.example/"),
            ("https://a.example/", "data:image/png;base64,AAAA"),
            ("https://a.example/", ""),
        ] {
            assert!(from(address, location).is_err(), "{address} to {location}: expected an error");
        }
    }
}
