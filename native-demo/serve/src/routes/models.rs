//! `GET /v1/models` and `GET /v1/models/{id}`: the one model.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use fovea_openai::keys::quoted;
use serde_json::{Value, json};

use super::chat::ANY;
use crate::{app::App, errors::refused, job::Problem};

impl App {
    /// Whether a request may use this name of a model. Without a name it is the served model.
    ///
    /// # Errors
    /// 404 for another name.
    pub(crate) fn check_model(&self, name: Option<&str>) -> Result<(), Problem> {
        let served = self.settings.model_name.as_str();
        match name.unwrap_or_default() {
            "" | ANY => Ok(()),
            name if name == served => Ok(()),
            name => {
                let message = format!("expected the model {served:?} or {ANY:?}, got {:?}", quoted(name));
                let problem = refused(StatusCode::NOT_FOUND, "model_not_found", message);
                Err(Problem { param: Some("model".to_owned()), ..problem })
            }
        }
    }

    fn model(&self) -> Value {
        let mut model = json!({
            "id": self.settings.model_name,
            "object": "model",
            "created": self.created,
            "owned_by": "fovea",
        });
        if let Some(about) = self.engine.about() {
            model["fovea"] = json!({
                "device": about.device,
                "dtype": about.dtype,
                "context": about.context,
                "max_new_tokens": self.settings.max_new_tokens,
                "max_pictures": self.settings.max_pictures,
            });
        }
        model
    }
}

/// All models: one.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [app.model()] }))
}

/// One model by its name, which may contain slashes.
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id = id.map_or_else(|_| "?".to_owned(), |Path(id)| id);
    app.check_model(Some(&id))?;
    Ok(Json(app.model()))
}
