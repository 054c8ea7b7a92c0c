//! Tokens in place of a connection string: ready-made ones, and those of
//! Microsoft Entra ID.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use crate::common::{FakeHub, HttpResponse, KEY, Ran, ctl};
use iotdm_proto::SecretKey;
use iotdm_proto::sas;
use serde_json::json;

/// A hub that is also Entra ID's authority.
fn hub() -> FakeHub {
    FakeHub::start(|request, _| match request.path.as_str() {
        "/tenant/oauth2/v2.0/token" if request.text.contains("client_secret=wrong") => {
            let what = "AADSTS7000215: Invalid client secret provided.";
            let error =
                json!({"error": "invalid_client", "error_description": what, "error_codes": [7000215]});
            HttpResponse::ok(error).status(401)
        }
        "/tenant/oauth2/v2.0/token" => HttpResponse::ok(
            json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ0.secret"}),
        ),
        _ => HttpResponse::twin(json!({})),
    })
}

fn host(hub: &FakeHub) -> String {
    hub.connection_string().split([';', '=']).nth(1).unwrap().to_owned()
}

fn show(hub: &FakeHub) -> Command {
    let mut command = ctl(&["twin", "show", "gw1"]);
    command.env("IOTHUB_HOST_NAME", host(hub)).env("IOTDM_CA_FILE", hub.path("ca.pem"));
    command
}

fn last_authorization(hub: &FakeHub) -> String {
    hub.requests().pop().unwrap().header("authorization").unwrap().to_owned()
}

#[test]
fn a_ready_made_sas_token_until_it_expires() {
    let hub = hub();
    let key: SecretKey = KEY.parse().unwrap();
    let token = |expiry| sas::sign(&host(&hub), &key, expiry, Some("service"));
    let run = |token: &str| Ran::from(show(&hub).env("IOTHUB_TOKEN", token).output().unwrap());
    run(&token(4_102_444_800)).ends(0, &[]);
    assert_eq!(last_authorization(&hub), token(4_102_444_800));
    let expired = run(&token(1_700_000_000));
    expired.ends(8, &[]);
    assert_eq!(
        expired.stderr,
        "iotdm-ctl: gw1: the token has expired, at 2023-11-14T22:13:20.000Z; get a new one\n"
    );
    run("SharedAccessSignature sr=h").ends(2, &["IOTHUB_TOKEN: not a SAS token"]);
    assert_eq!(hub.requests().len(), 1, "nothing is sent with what cannot do");
}

#[test]
fn a_client_with_its_secret() {
    let hub = hub();
    let authority = format!("https://{}", host(&hub));
    let with = |secret: &str| {
        let mut command = show(&hub);
        command
            .env("AZURE_TENANT_ID", "tenant")
            .env("AZURE_CLIENT_ID", "me")
            .env("AZURE_CLIENT_SECRET", secret);
        Ran::from(command.env("AZURE_AUTHORITY_HOST", &authority).output().unwrap())
    };
    with("p+w").ends(0, &[]);
    let asked = &hub.requests()[0];
    assert_eq!(asked.line(), "POST /tenant/oauth2/v2.0/token");
    for part in ["client_id=me", "client_secret=p%2Bw", "scope=https%3A%2F%2Fiothubs.azure.net%2F.default"] {
        assert!(asked.text.contains(part), "{asked:?}");
    }
    assert_eq!(last_authorization(&hub), "Bearer eyJ0.secret");
    let run = with("wrong");
    run.ends(8, &["no token of client me", "AADSTS7000215", "check tenant, client and secret"]);
    assert!(!run.stderr.contains("wrong"), "{run:#?}");

    let home = hub.path("home/iotdm");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("secret"), "p+w\n").unwrap();
    fs::set_permissions(home.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let profile = "client_secret_file = 'secret'\ntenant_id = 'tenant'\nclient_id = 'me'";
    fs::write(home.join("ctl.toml"), format!("[hub.x]\nhost_name = '{}'\n{profile}\n", host(&hub))).unwrap();
    let mut command = ctl(&["--hub", "x", "twin", "show", "gw1"]);
    command.env("XDG_CONFIG_HOME", hub.path("home")).env("IOTDM_CA_FILE", hub.path("ca.pem"));
    Ran::from(command.env("AZURE_AUTHORITY_HOST", &authority).output().unwrap()).ends(0, &[]);
    assert_eq!(last_authorization(&hub), "Bearer eyJ0.secret");
}

/// The service beside a program in Azure that knows its identity; it answers
/// one request, and returns its first line.
fn identity_service(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/token", listener.local_addr().unwrap());
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        let secret = lines.take_while(|line| !line.is_empty()).any(|line| line == "x-identity-header: s");
        assert!(secret, "it is asked with the header that it wants");
        let length = answer.len();
        write!(stream, "HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}")
            .unwrap();
        first
    });
    (address, served)
}

#[test]
fn a_managed_identity() {
    let hub = hub();
    let home = hub.path("home/iotdm");
    fs::create_dir_all(&home).unwrap();
    let profile = format!("host_name = '{}'\nmanaged_identity = true\n", host(&hub));
    fs::write(home.join("ctl.toml"), format!("[hub.x]\n{profile}[hub.user]\n{profile}client_id = 'me'\n"))
        .unwrap();
    for (name, asked) in [("x", ""), ("user", "&client_id=me")] {
        let (address, served) = identity_service(
            r#"{"access_token": "eyJ0.vm", "expires_on": "4102444800", "token_type": "Bearer", "resource": "x"}"#,
        );
        let mut command = ctl(&["--hub", name, "twin", "show", "gw1"]);
        command.env("XDG_CONFIG_HOME", hub.path("home")).env("IOTDM_CA_FILE", hub.path("ca.pem"));
        // The machine's own network is reached without the proxy for all else.
        command.env("HTTP_PROXY", "http://127.0.0.1:1").env("IDENTITY_HEADER", "s");
        Ran::from(command.env("IDENTITY_ENDPOINT", address).output().unwrap()).ends(0, &[]);
        let line = served.join().unwrap();
        let wanted = format!("resource=https%3A%2F%2Fiothubs.azure.net{asked} HTTP/1.1");
        assert!(line.starts_with("GET /token?") && line.ends_with(&wanted), "{line}");
        assert_eq!(last_authorization(&hub), "Bearer eyJ0.vm");
    }
}

#[test]
fn entra_id_by_a_token_or_by_the_azure_cli() {
    let hub = hub();
    Ran::from(show(&hub).env("IOTHUB_TOKEN", "eyJ0.given").output().unwrap()).ends(0, &[]);
    assert_eq!(hub.requests()[0].header("authorization"), Some("Bearer eyJ0.given"));

    Ran::from(show(&hub).env("PATH", "/nonexistent").output().unwrap())
        .ends(8, &["az is not installed", "az login"]);
    let az = hub.path("az");
    let script = |text: &str| {
        // By a program of its own: what this one had open for writing, another test's
        // child could still have, and then it cannot be run.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#;
        assert!(Command::new("sh").args(["-c", write]).arg(&az).arg(text).status().unwrap().success());
        Ran::from(show(&hub).env("PATH", hub.path("")).output().unwrap())
    };
    script("echo \"{\\\"accessToken\\\": \\\"eyJ0.$*\\\", \\\"expires_on\\\": 4102444800}\"").ends(0, &[]);
    let expected = "Bearer eyJ0.account get-access-token --resource https://iothubs.azure.net --output json";
    assert_eq!(hub.requests()[1].header("authorization"), Some(expected));
    script("echo 'Please run az login' >&2; exit 1").ends(8, &["Please run az login"]);
    let strange = script("echo '{\"accessToken\": 3}'");
    strange.ends(8, &["something else than a token"]);
}

#[test]
fn a_token_file_is_read_again() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("iotdm");
    fs::create_dir(&config).unwrap();
    let token = config.join("token");
    let write = |text: &str| {
        fs::write(&token, text).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    };
    // At the second request the first token has expired. At the third, the file is
    // renewed while the request is on its way.
    let file = token.clone();
    let hub = FakeHub::start(move |request, before| {
        let authorization = request.header("authorization").unwrap();
        let refused = HttpResponse::classic(401, "IotHubUnauthorizedAccess");
        let row = |n: u32| HttpResponse::ok(json!([{"deviceId": format!("gw{n}")}]));
        match (before, authorization) {
            (0, "Bearer eyJ0.first") => {
                fs::write(&file, "eyJ0.second").unwrap();
                row(1).with("x-ms-continuation", "2")
            }
            (1, "Bearer eyJ0.second") => row(2).with("x-ms-continuation", "3"),
            (2, "Bearer eyJ0.second") => {
                fs::write(&file, "eyJ0.third").unwrap();
                refused
            }
            (3, "Bearer eyJ0.third") => row(3),
            _ => refused,
        }
    });
    fs::write(
        config.join("ctl.toml"),
        format!("[hub.lab]\nhost_name = '{}'\ntoken_file = 'token'\n", host(&hub)),
    )
    .unwrap();
    write("eyJ0.first");
    let mut command = ctl(&["query", "SELECT deviceId FROM devices", "-o", "jsonl"]);
    command.env("XDG_CONFIG_HOME", home.path()).env("IOTDM_CA_FILE", hub.path("ca.pem"));
    let run = Ran::from(command.output().unwrap());
    run.ends(0, &[]);
    assert_eq!(run.stdout.lines().count(), 3, "{run:#?}");
    // A refusal with the newest token is the last word.
    let run = Ran::from(command.output().unwrap());
    run.ends(8, &["not authorised"]);
    assert_eq!(hub.requests().len(), 5, "it is not tried again and again");
}
