//! `GET /openapi.json`: the description of all routes, in OpenAPI 3.1.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use crate::{app::App, settings::Settings};

/// The description of this server's routes, with its limits.
pub(crate) async fn openapi(State(app): State<Arc<App>>) -> Json<Value> {
    Json(document(&app.settings))
}

fn document(settings: &Settings) -> Value {
    let mut paths = json!({
        "/v1/chat/completions": { "post": {
            "operationId": "chat",
            "summary": "Answer the last message of a conversation about pictures",
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": schema("ChatRequest") } },
            },
            "responses": responses(
                json!({
                    "description": "The answer; with `stream`, server-sent events whose data are chunks, and `[DONE]` at the end",
                    "headers": request_id(),
                    "content": {
                        "application/json": { "schema": schema("ChatCompletion") },
                        "text/event-stream": { "schema": { "type": "string" } },
                    },
                }),
                &[400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504, 507],
            ),
        } },
        "/v1/models": { "get": {
            "operationId": "models",
            "summary": "The served model, as a list",
            "responses": responses(ok(schema("Models")), &[401, 403]),
        } },
        "/v1/models/{id}": { "get": {
            "operationId": "model",
            "summary": "The served model",
            "parameters": [path_id("The name of the model")],
            "responses": responses(ok(schema("Model")), &[401, 403, 404]),
        } },
        "/v1/overlay/{id}": { "get": {
            "operationId": "overlay",
            "summary": "The attention overlay of a recent answer about a picture, as PNG",
            "parameters": [
                path_id("The id of the answer"),
                {
                    "name": "picture",
                    "in": "query",
                    "description": "The picture, from 0",
                    "schema": { "type": "integer", "minimum": 0, "default": 0 },
                },
            ],
            "responses": responses(
                json!({
                    "description": "A PNG file",
                    "headers": request_id(),
                    "content": { "image/png": { "schema": { "type": "string", "contentMediaType": "image/png" } } },
                }),
                &[400, 401, 403, 404, 500],
            ),
        } },
        "/health": { "get": {
            "operationId": "health",
            "summary": "The process runs",
            "security": [],
            "responses": responses(ok(schema("Status")), &[403]),
        } },
        "/ready": { "get": {
            "operationId": "ready",
            "summary": "Whether the server can answer now",
            "security": [],
            "responses": with(responses(ok(schema("Status")), &[403]), "503", ok(schema("Status"))),
        } },
        "/metrics": { "get": {
            "operationId": "metrics",
            "summary": "Counters, in Prometheus' text format",
            "responses": responses(
                json!({
                    "description": "The counters",
                    "headers": request_id(),
                    "content": { "text/plain": { "schema": { "type": "string" } } },
                }),
                &[401, 403],
            ),
        } },
        "/openapi.json": { "get": {
            "operationId": "openapi",
            "summary": "This description",
            "security": [],
            "responses": responses(ok(json!({ "type": "object" })), &[403]),
        } },
    });
    if settings.page.is_some() {
        paths["/fovea-server.json"] = json!({ "get": {
            "operationId": "discover",
            "summary": "What the page needs to use this server",
            "security": [],
            "responses": responses(ok(schema("Discovery")), &[403]),
        } });
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Fovea",
            "description": "Questions about pictures, with OpenAI's chat completions",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas(settings) },
    });
    if !settings.keys.is_empty() {
        document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "key": [] }]);
    }
    document
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn ok(schema: Value) -> Value {
    json!({
        "description": "The answer",
        "headers": request_id(),
        "content": { "application/json": { "schema": schema } },
    })
}

fn request_id() -> Value {
    json!({ "x-request-id": { "description": "The id of the request in the log", "schema": { "type": "string" } } })
}

fn path_id(description: &str) -> Value {
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": description,
        "schema": { "type": "string", "minLength": 1 },
    })
}

/// The response 200, and errors. 405 is possible everywhere.
fn responses(ok: Value, errors: &[u16]) -> Value {
    let all = errors.iter().chain(&[405]);
    let mut responses: Map<String, Value> = all.map(|status| (status.to_string(), error(*status))).collect();
    responses.insert("200".to_owned(), ok);
    Value::Object(responses)
}

fn with(mut responses: Value, status: &str, response: Value) -> Value {
    responses[status] = response;
    responses
}

fn error(status: u16) -> Value {
    let description = match status {
        400 => "The request is wrong: no JSON, a key, an option, a picture, or too many tokens",
        401 => "The API key is missing or wrong",
        403 => "The `Host` header is not a name of this server",
        404 => "There is no such model or overlay",
        405 => "Another method than those of the header `Allow`",
        408 => "The body did not arrive in time",
        413 => "The body is too large",
        415 => "The body is not application/json",
        429 => "Too many requests wait; see `Retry-After`",
        503 => "The server is loading, stopping or busy, or its device was lost; see `Retry-After`",
        504 => "There was no answer in time",
        507 => "The request needs more memory than there is",
        _ => "An internal error",
    };
    let mut headers = request_id();
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    match status {
        401 => headers["www-authenticate"] = text("The scheme of keys"),
        405 => headers["allow"] = text("The methods of this path"),
        504 | 507 => headers["x-should-retry"] = text("`false`: the same request would fail again"),
        429 | 503 => headers["retry-after"] = text("Seconds to wait"),
        _ => {}
    }
    json!({
        "description": description,
        "headers": headers,
        "content": { "application/json": { "schema": schema("Error") } },
    })
}

/// The bodies of requests and responses.
fn schemas(settings: &Settings) -> Value {
    let count = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    let longest = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": settings.max_new_tokens });
    let stop = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
    json!({
        "ChatRequest": {
            "type": "object",
            "required": ["messages"],
            "properties": {
                "messages": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1024,
                    "items": schema("Message"),
                    "description": "The conversation. The last message is the question, and its role is `user`",
                },
                "model": {
                    "enum": [settings.model_name, super::chat::ANY, "", null],
                    "description": "Without it: the served model",
                },
                "max_tokens": longest,
                "max_completion_tokens": longest,
                "temperature": {
                    "type": ["number", "null"],
                    "minimum": 0,
                    "description": "0, or without it: always the most likely token",
                },
                "top_p": { "type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1 },
                "top_k": { "type": ["integer", "null"], "minimum": 0, "description": "0: from all tokens" },
                "repetition_penalty": { "type": ["number", "null"], "exclusiveMinimum": 0 },
                "seed": { "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX },
                "stop": {
                    "anyOf": [
                        text,
                        { "type": "array", "maxItems": 16, "items": stop },
                        { "type": "null" },
                    ],
                    "description": "Texts that end the answer, which does not contain them",
                },
                "stream": { "type": ["boolean", "null"] },
                "stream_options": {
                    "type": ["object", "null"],
                    "properties": { "include_usage": { "type": ["boolean", "null"] } },
                    "additionalProperties": schema("Neutral"),
                },
                "compression": {
                    "type": ["string", "null"],
                    "description": "Which visual tokens the model uses: a method and its settings, such as `focus:gamma=.7`",
                },
                "response_format": {
                    "type": ["object", "null"],
                    "properties": { "type": { "const": "text" } },
                    "required": ["type"],
                },
                "n": { "enum": [1, null] },
                "user": { "type": ["string", "null"], "description": "One of the client's users; the queue is fair between them" },
                "metadata": { "description": "Ignored" },
                "store": { "description": "Ignored" },
                "service_tier": { "description": "Ignored" },
                "prompt_cache_key": { "description": "Ignored" },
                "safety_identifier": { "description": "Ignored" },
                "modalities": { "enum": [["text"], null] },
            },
            "additionalProperties": schema("Neutral"),
        },
        "Neutral": {
            "description": "Other keys are accepted with a value that has no effect",
            "enum": [null, false, 0, "", [], {}],
        },
        "Message": {
            "type": "object",
            "required": ["role"],
            "properties": {
                "role": { "enum": ["system", "developer", "user", "assistant"] },
                "content": {
                    "anyOf": [
                        text,
                        { "type": "array", "minItems": 1, "maxItems": 128, "items": schema("Part") },
                        { "type": "null", "description": "Only of an assistant" },
                    ],
                },
                "name": { "description": "Ignored" },
            },
            "additionalProperties": schema("Neutral"),
        },
        "Part": {
            "anyOf": [
                {
                    "type": "object",
                    "required": ["type", "text"],
                    "properties": { "type": { "const": "text" }, "text": text },
                    "additionalProperties": schema("Neutral"),
                },
                {
                    "type": "object",
                    "required": ["type", "image_url"],
                    "properties": {
                        "type": { "const": "image_url" },
                        "image_url": {
                            "type": "object",
                            "required": ["url"],
                            "properties": {
                                "url": {
                                    "type": "string",
                                    "description": "A data URL with a PNG, JPEG, WebP, GIF or BMP file in base64; with --allow-remote-images also an address (http, https)",
                                },
                                "detail": { "description": "Ignored" },
                            },
                            "additionalProperties": schema("Neutral"),
                        },
                    },
                    "additionalProperties": schema("Neutral"),
                },
            ],
        },
        "ChatCompletion": {
            "type": "object",
            "required": ["id", "object", "created", "model", "choices", "usage", "compression"],
            "properties": {
                "id": text,
                "object": { "const": "chat.completion" },
                "created": count,
                "model": text,
                "choices": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["index", "message", "finish_reason"],
                        "properties": {
                            "index": { "const": 0 },
                            "message": {
                                "type": "object",
                                "required": ["role", "content"],
                                "properties": { "role": { "const": "assistant" }, "content": text },
                            },
                            "finish_reason": { "enum": ["stop", "length"] },
                        },
                    },
                },
                "usage": schema("Usage"),
                "compression": { "type": "string", "description": "The compression that ran" },
                "fovea": schema("Fovea"),
            },
        },
        "Usage": {
            "type": "object",
            "required": ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "visual_tokens", "equivalent_share", "picture_cached"],
            "properties": {
                "prompt_tokens": count,
                "completion_tokens": count,
                "total_tokens": count,
                "prompt_tokens_details": { "type": "object", "properties": { "cached_tokens": count } },
                "visual_tokens": {
                    "type": "object",
                    "properties": { "all": count, "compressed": count, "kept": count },
                },
                "equivalent_share": { "type": "number", "minimum": 0 },
                "picture_cached": { "type": "boolean" },
            },
        },
        "Fovea": {
            "type": "object",
            "description": "Only of an answer about pictures",
            "required": ["kept", "overlay"],
            "properties": {
                "kept": {
                    "type": "array",
                    "description": "One per picture",
                    "items": {
                        "type": "object",
                        "required": ["grid", "tokens", "kept"],
                        "properties": {
                            "grid": { "type": "array", "minItems": 2, "maxItems": 2, "items": count, "description": "Rows and columns of patches" },
                            "tokens": { "type": "integer", "minimum": 0, "description": "Visual tokens that enter the text model" },
                            "kept": { "type": "array", "items": count, "description": "Those that its last layer reads" },
                        },
                    },
                },
                "overlay": { "type": "string", "description": "The path of the attention overlay" },
            },
        },
        "Models": {
            "type": "object",
            "required": ["object", "data"],
            "properties": { "object": { "const": "list" }, "data": { "type": "array", "items": schema("Model") } },
        },
        "Model": {
            "type": "object",
            "required": ["id", "object", "created", "owned_by"],
            "properties": {
                "id": text,
                "object": { "const": "model" },
                "created": count,
                "owned_by": text,
                "fovea": { "type": "object", "description": "Device, dtype and limits, when the model is loaded" },
            },
        },
        "Status": {
            "type": "object",
            "required": ["status"],
            "properties": { "status": { "enum": ["ok", "ready", "loading", "failed", "stopping"] } },
        },
        "Discovery": {
            "type": "object",
            "required": ["models", "api", "key"],
            "properties": {
                "models": { "type": "array", "items": text },
                "api": { "type": "string", "description": "The path before `/chat/completions`" },
                "key": { "type": "boolean", "description": "Whether an API key is needed" },
            },
        },
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {
                        "message": { "type": "string", "description": "Expected, got, and what to do" },
                        "type": { "enum": ["invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"] },
                        "param": { "type": ["string", "null"], "description": "The key that is wrong" },
                        "code": { "type": "string", "description": "A stable name" },
                    },
                    "additionalProperties": false,
                },
            },
            "additionalProperties": false,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// All values of `$ref` in `value`.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_a_schema_and_every_schema_is_used() {
        let settings = Settings { page: Some(PathBuf::from("page")), ..Settings::default() };
        let document = document(&settings);
        let mut found = Vec::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for reference in &found {
            let name = reference.strip_prefix("#/components/schemas/").expect("a local reference");
            assert!(schemas.contains_key(name), "expected a schema {name}, got none");
        }
        for name in schemas.keys() {
            assert!(found.iter().any(|reference| reference.ends_with(&format!("/{name}"))), "{name} is not used");
        }
    }
}
