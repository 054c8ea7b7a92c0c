//! The emulator's own certificate authority and the server certificate that
//! it signs.
//!
//! The authority is kept, since clients trust it. It can sign for the names of
//! this emulator alone (RFC 5280, section 4.2.1.10), so that whoever gets hold of
//! its key can pose as nothing else to those who trust it. When the emulator gets
//! another name, or the authority's time is nearly over, there is a new one. The
//! authority that an earlier version made, which can sign for every name, stays:
//! only its user knows who trusts it.
//!
//! The server certificate is made anew at each start, for the names that this
//! start asks for, and never stored. Both are valid from 2020 on, since a device
//! without a clock chip that is tried out against the emulator starts with a
//! wrong date.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use iotdm_proto::Time;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tracing::warn;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use crate::certificates::AnyCertificate;
use crate::clock::now;
use crate::random;
use crate::store::Store;

/// The name of the authority in the store.
const STORED: &str = "authority";

/// How long a new authority is valid: two years, in which a developer's machine is
/// set up anew, or the emulator's directory is.
const LIFE: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// How much of its time an authority has to have left at a start, so that it does
/// not end while the emulator runs: 30 days.
const RESERVE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A certificate authority as the store keeps it.
#[derive(Serialize, Deserialize)]
pub struct Authority {
    /// The authority's certificate in PEM, for clients to trust.
    pub certificate_pem: String,
    key_pem: String,
}

/// What an authority can sign for.
#[derive(Debug)]
pub struct Reach {
    /// The names and networks; `None` for all of them.
    pub permitted: Option<Vec<Permitted>>,
    /// When the authority's time is over.
    pub until: Time,
}

/// Something that an authority can sign for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permitted {
    /// A host, and those below it.
    Name(String),
    /// The addresses that have so many leading bits in common with this one.
    Network(IpAddr, u8),
}

impl Authority {
    /// The authority in the store, or a new one if there is none that can sign for
    /// a server called `hosts` at `bind`.
    pub fn of(store: &Store, hosts: &[String], bind: IpAddr) -> Result<Self> {
        let wanted = Permitted::of_server(hosts, bind);
        let kept = store.hub_value(STORED, || Authority::generate(&wanted, now()))?;
        let reach = Reach::read(kept.certificate_pem.as_bytes()).context("the stored CA is unreadable")?;
        let Some(why) = reach.lacks(&wanted, now()) else { return Ok(kept) };
        // Also what the one before could sign for: the names may change back.
        let mut all = reach.permitted.unwrap_or_default();
        all.extend(wanted);
        all.sort();
        all.dedup();
        let authority = Authority::generate(&all, now())?;
        store.set_hub_value(STORED, &authority)?;
        warn!("made a new CA, since the one before {why}: programs have to be told to trust the new ca.pem");
        Ok(authority)
    }

    /// A new authority for these names and networks, with a P-256 key, which every
    /// TLS library knows.
    fn generate(permitted: &[Permitted], now: Time) -> Result<Self> {
        let key = KeyPair::generate().context("cannot generate the CA's key")?;
        let mut params = valid_until(CertificateParams::new(Vec::new())?, now.after(LIFE));
        // The name is unique, so that a client that trusts another emulator's CA
        // is told of an unknown issuer and not of a bad signature.
        let name = format!("iotdm-emulator CA {}", random::hex_id()?);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let permitted_subtrees = permitted.iter().map(Permitted::subtree).collect();
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let certificate = params.self_signed(&key).context("cannot sign the CA's certificate")?;
        Ok(Authority { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// How both listeners speak TLS (1.2 and 1.3): with a fresh certificate for
    /// `hosts`, `bind` and the names of this machine itself. Clients are asked for
    /// a certificate; whether a client needs one depends on who it says it is,
    /// which its CONNECT or request tells.
    pub fn server_config(&self, hosts: &[String], bind: IpAddr) -> Result<ServerConfig> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        names.extend_from_slice(hosts);
        if !bind.is_unspecified() {
            names.push(bind.to_string());
        }
        names.sort();
        names.dedup();

        let until = Reach::read(self.certificate_pem.as_bytes())?.until;
        let mut params = valid_until(CertificateParams::new(names)?, until);
        params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("localhost", String::as_str));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let ca_key = KeyPair::from_pem(&self.key_pem).context("the stored CA key is unreadable")?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, ca_key)
            .context("the stored CA certificate is unreadable")?;
        let key = KeyPair::generate().context("cannot generate the server's key")?;
        let certificate = params.signed_by(&key, &issuer).context("cannot sign the server's certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyCertificate::default()))
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(config)
    }
}

impl Reach {
    /// Reads a CA's certificate in PEM.
    pub fn read(pem: &[u8]) -> Result<Self> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| anyhow!("no certificate in PEM form: {error}"))?;
        let certificate = pem.parse_x509().map_err(|error| anyhow!("no certificate: {error}"))?;
        let constraints =
            certificate.name_constraints().map_err(|error| anyhow!("no certificate: {error}"))?;
        let subtrees = constraints.and_then(|found| found.value.permitted_subtrees.as_ref());
        let permitted = subtrees.map(|all| all.iter().filter_map(|one| Permitted::read(&one.base)).collect());
        let until = certificate.validity().not_after.timestamp();
        Ok(Reach { permitted, until: Time::from_unix_millis(until.saturating_mul(1000)) })
    }

    /// What the authority can sign for, for people; `None` when it is everything.
    pub fn only(&self) -> Option<String> {
        let names: Vec<String> = self.permitted.as_ref()?.iter().map(Permitted::to_string).collect();
        Some(names.join(", "))
    }

    /// Why the authority cannot be used for what is `wanted`, if it cannot.
    fn lacks(&self, wanted: &[Permitted], now: Time) -> Option<String> {
        if now.after(RESERVE) > self.until {
            return Some(format!("is valid until {} only", self.until));
        }
        let permitted = self.permitted.as_ref()?;
        let missing = wanted.iter().find(|one| !permitted.iter().any(|other| other.covers(one)))?;
        Some(format!("cannot sign for {missing}"))
    }
}

impl Permitted {
    /// What an authority has to be able to sign for, for the server of this
    /// machine that is called `hosts` and listens at `bind`.
    fn of_server(hosts: &[String], bind: IpAddr) -> Vec<Self> {
        let whole = |address: IpAddr| Permitted::Network(address, if address.is_ipv4() { 32 } else { 128 });
        let mut all = vec![
            Permitted::Name("localhost".to_owned()),
            Permitted::Network(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            whole(Ipv6Addr::LOCALHOST.into()),
        ];
        let of =
            |host: &String| host.parse().map_or_else(|_| Permitted::Name(host.to_ascii_lowercase()), whole);
        let bound = (!bind.is_unspecified()).then(|| whole(bind));
        for other in hosts.iter().map(of).chain(bound) {
            if !all.iter().any(|one| one.covers(&other)) {
                all.push(other);
            }
        }
        all
    }

    /// Whether `other` is part of this.
    fn covers(&self, other: &Permitted) -> bool {
        match (self, other) {
            (Permitted::Name(name), Permitted::Name(other)) => name.eq_ignore_ascii_case(other),
            (Permitted::Network(network, length), Permitted::Network(other, longer)) => {
                network.is_ipv4() == other.is_ipv4()
                    && length <= longer
                    && prefix(*network, *length) == prefix(*other, *length)
            }
            _ => false,
        }
    }

    fn subtree(&self) -> GeneralSubtree {
        match self {
            Permitted::Name(name) => GeneralSubtree::DnsName(name.clone()),
            Permitted::Network(address, length) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, *length))
            }
        }
    }

    /// A name in a certificate; `None` for other kinds of names, of which this
    /// emulator's authorities have none.
    fn read(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Permitted::Name((*name).to_owned())),
            GeneralName::IPAddress(bytes) => {
                let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
                let length: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from)).ok()?;
                Some(Permitted::Network(address, u8::try_from(length).ok()?))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Permitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Permitted::Name(name) => f.write_str(name),
            Permitted::Network(address, 32) if address.is_ipv4() => write!(f, "{address}"),
            Permitted::Network(address, 128) => write!(f, "{address}"),
            Permitted::Network(address, length) => write!(f, "{address}/{length}"),
        }
    }
}

/// The first `length` bits of an address.
fn prefix(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    bits.checked_shr(width - u32::from(length).min(width)).unwrap_or_default()
}

/// The parameters with a validity that ends at `until`.
fn valid_until(mut params: CertificateParams, until: Time) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(until.unix_seconds());
    params
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn store(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("store")).unwrap()
    }

    /// Names, separated by spaces.
    fn hosts(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn reach(authority: &Authority) -> Reach {
        Reach::read(authority.certificate_pem.as_bytes()).unwrap()
    }

    /// Whether a client that trusts the authority takes a certificate that its key
    /// has signed, for `name`.
    fn is_trusted(authority: &Authority, name: &str) -> bool {
        let issuer = Issuer::from_ca_cert_pem(
            &authority.certificate_pem,
            KeyPair::from_pem(&authority.key_pem).unwrap(),
        );
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer.unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name).unwrap();
        client.verify_server_cert(leaf.der(), &[], &name, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn an_authority_can_sign_for_its_emulator_alone_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let authority =
            Authority::of(&store(&dir), &hosts("hub.example"), "192.0.2.7".parse().unwrap()).unwrap();
        for name in ["localhost", "hub.example", "127.0.0.1", "127.8.9.10", "::1", "192.0.2.7"] {
            assert!(is_trusted(&authority, name), "{name}");
        }
        for name in ["www.example", "example", "localhost.example", "192.0.2.8", "10.0.0.1", "::2", "fe80::1"]
        {
            assert!(!is_trusted(&authority, name), "{name}");
        }
        let reach = reach(&authority);
        assert_eq!(reach.only().unwrap(), "localhost, 127.0.0.0/8, ::1, hub.example, 192.0.2.7");
        assert!(reach.until <= now().after(LIFE) && reach.until > now().after(LIFE - RESERVE));
    }

    #[test]
    fn a_stored_authority_goes_on_signing_until_it_has_to_sign_for_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let of = |host: &str, bind: &str| Authority::of(&store, &hosts(host), bind.parse().unwrap()).unwrap();
        let first = of("localhost", "127.0.0.1");
        for bind in ["127.0.0.9", "0.0.0.0", "::1", "::"] {
            let same = of("LocalHost", bind);
            assert_eq!(same.certificate_pem, first.certificate_pem, "{bind}");
            same.server_config(&hosts("LocalHost"), bind.parse().unwrap()).unwrap();
        }
        let second = of("hub.example", "192.0.2.7");
        assert_ne!(second.certificate_pem, first.certificate_pem);
        assert!(is_trusted(&second, "hub.example") && is_trusted(&second, "192.0.2.7"));
        for (host, bind) in [("localhost", "127.0.0.1"), ("hub.example", "::1"), ("192.0.2.7", "0.0.0.0")] {
            assert_eq!(of(host, bind).certificate_pem, second.certificate_pem, "{host} {bind}");
        }
        let third = of("other.example", "127.0.0.1");
        assert!(is_trusted(&third, "hub.example") && is_trusted(&third, "other.example"));
        let fourth = of("localhost hub container-7 192.0.2.9", "127.0.0.1");
        for name in ["localhost", "hub", "container-7", "192.0.2.9", "other.example"] {
            assert!(is_trusted(&fourth, name), "{name}");
        }
    }

    #[test]
    fn an_authority_whose_time_is_nearly_over_is_followed_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let wanted = Permitted::of_server(&hosts("localhost"), LOOPBACK);
        for (age, stays) in [(LIFE - RESERVE - Duration::from_secs(60), true), (LIFE - RESERVE, false)] {
            let old = Authority::generate(&wanted, now().before(age)).unwrap();
            store.set_hub_value(STORED, &old).unwrap();
            let kept = Authority::of(&store, &hosts("localhost"), LOOPBACK).unwrap();
            assert_eq!(kept.certificate_pem == old.certificate_pem, stays);
            assert!(is_trusted(&kept, "localhost"));
        }
    }

    /// One as earlier versions made it.
    fn of_earlier_version() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        params.distinguished_name.push(DnType::CommonName, "iotdm-emulator CA x");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).unwrap().pem();
        Authority { certificate_pem, key_pem: key.serialize_pem() }
    }

    #[test]
    fn the_authority_of_an_earlier_version_stays_and_is_known_for_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let old = of_earlier_version();
        store.set_hub_value(STORED, &old).unwrap();
        let kept = Authority::of(&store, &hosts("hub.example"), LOOPBACK).unwrap();
        assert_eq!(kept.certificate_pem, old.certificate_pem);
        assert!(is_trusted(&kept, "www.example"), "so much could it do");
        kept.server_config(&hosts("hub.example"), LOOPBACK).unwrap();
        let reach = reach(&kept);
        assert_eq!((reach.only(), reach.until.to_string().as_str()), (None, "2050-01-01T00:00:00.000Z"));
    }
}
