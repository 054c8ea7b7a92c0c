//! Tokens and connection strings.

#![no_main]

use iotdm_proto::sas::SasToken;
use iotdm_proto::{DeviceConnectionString, SecretKey, ServiceConnectionString};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = text.parse::<DeviceConnectionString>();
    let _ = text.parse::<ServiceConnectionString>();
    let key: SecretKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".parse().unwrap();
    if let Ok(token) = text.parse::<SasToken>() {
        let _ = (token.expiry(), token.policy());
        // Nobody guesses the key.
        assert!(token.verify(&key, 0, &token.resource()).is_err());
    }
    let _ = text.parse::<SecretKey>();
});
