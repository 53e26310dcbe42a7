//! The headers that precede every request and response.
//!
//! Request headers exist as v1 (with a client id) and v2 (with tagged fields as well), response
//! headers as v0 and v1; v0 of the former disappeared with ControlledShutdown v0. A request of a
//! flexible version has v2 and its response v1, except for ApiVersions, whose response always has
//! v0: the client does not know yet what the server understands (KIP-511).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::error::Result;
use crate::protocol::api::ApiKey;
use crate::protocol::primitives::{Decoder, Encoder, Str};

/// The header of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of the API; see [`RequestHeader::api`].
    pub api_key: i16,
    /// The version of the API.
    pub api_version: i16,
    /// The number that the response will carry.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// The API, if it is one of Kafka's.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_i16(self.api_key)
    }

    fn is_flexible(&self) -> bool {
        self.api().is_some_and(|api| api.is_flexible(self.api_version))
    }

    /// Reads a header, even that of an unknown API or version.
    ///
    /// # Errors
    ///
    /// When the bytes do not follow the protocol.
    pub fn decode(decoder: &mut Decoder) -> Result<Self> {
        let header = Self {
            api_key: decoder.get_i16()?,
            api_version: decoder.get_i16()?,
            correlation_id: decoder.get_i32()?,
            client_id: decoder.get_string(false)?,
        };
        if header.is_flexible() {
            decoder.tags(&mut |_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header.
    ///
    /// # Errors
    ///
    /// When the client id is longer than the protocol allows.
    pub fn encode(&self, encoder: &mut Encoder) -> Result<()> {
        encoder.put_i16(self.api_key);
        encoder.put_i16(self.api_version);
        encoder.put_i32(self.correlation_id);
        // Never compact, not even in v2.
        encoder.put_string_length(self.client_id.as_ref().map(|id| id.len()), false)?;
        if let Some(client_id) = &self.client_id {
            encoder.put_slice(client_id.as_bytes());
        }
        encoder.put_tags(Vec::new(), self.is_flexible())
    }
}

/// The header of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The number of the request that is answered.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of a response to `api` at `version`.
    ///
    /// # Errors
    ///
    /// When the bytes do not follow the protocol.
    pub fn decode(api: ApiKey, version: i16, decoder: &mut Decoder) -> Result<Self> {
        let header = Self { correlation_id: decoder.get_i32()? };
        if api.response_header_version(version) >= 1 {
            decoder.tags(&mut |_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header of a response to `api` at `version`.
    ///
    /// # Errors
    ///
    /// None today; the tagged fields are empty.
    pub fn encode(self, api: ApiKey, version: i16, encoder: &mut Encoder) -> Result<()> {
        encoder.put_i32(self.correlation_id);
        encoder.put_tags(Vec::new(), api.response_header_version(version) >= 1)
    }
}
