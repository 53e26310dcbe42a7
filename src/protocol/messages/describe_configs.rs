//! DescribeConfigs (API key 32).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeConfigs request.
    struct DescribeConfigsRequest versions [1-4] flexible [4+] {
        resources: Vec<DescribeConfigsResource>, "Resources" [0+];
        include_synonyms: bool, "IncludeSynonyms" [1+];
        include_documentation: bool, "IncludeDocumentation" [3+];
    }

    /// An element of [`DescribeConfigsRequest::resources`].
    struct DescribeConfigsResource {
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        configuration_keys: Option<Vec<Str>> = Some(Vec::new()),
            "ConfigurationKeys" [0+] nullable [0+];
    }

    /// The body of the DescribeConfigs response.
    struct DescribeConfigsResponse versions [1-4] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        results: Vec<DescribeConfigsResult>, "Results" [0+];
    }

    /// An element of [`DescribeConfigsResponse::results`].
    struct DescribeConfigsResult {
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str> = Some(Str::EMPTY), "ErrorMessage" [0+] nullable [0+];
        resource_type: i8, "ResourceType" [0+];
        resource_name: Str, "ResourceName" [0+];
        configs: Vec<DescribeConfigsResourceResult>, "Configs" [0+];
    }

    /// An element of [`DescribeConfigsResult::configs`].
    struct DescribeConfigsResourceResult {
        name: Str, "Name" [0+];
        value: Option<Str> = Some(Str::EMPTY), "Value" [0+] nullable [0+];
        read_only: bool, "ReadOnly" [0+];
        config_source: i8 = -1, "ConfigSource" [1+], ignorable;
        is_sensitive: bool, "IsSensitive" [0+];
        synonyms: Vec<DescribeConfigsSynonym>, "Synonyms" [1+], ignorable;
        config_type: i8, "ConfigType" [3+], ignorable;
        documentation: Option<Str> = Some(Str::EMPTY),
            "Documentation" [3+] nullable [0+], ignorable;
    }

    /// An element of [`DescribeConfigsResourceResult::synonyms`].
    struct DescribeConfigsSynonym {
        name: Str, "Name" [1+];
        value: Option<Str> = Some(Str::EMPTY), "Value" [1+] nullable [0+];
        source: i8, "Source" [1+];
    }
}
