//! The picture and its overlay: zoom, pan, and the data of the token under the pointer.

use eframe::egui::{
    Color32, CornerRadius, Event as Input, EventFilter, Id, Key, PointerButton, Rect, Response, Role, Sense, Stroke,
    StrokeKind, Tooltip, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use crate::{app::App, token::Token};

/// Points by which an arrow key moves the picture.
const STEP: f32 = 48.0;

impl App {
    pub(super) fn picture(&mut self, ui: &mut Ui) {
        let Some(plain) = &self.canvas.plain else { return };
        let texture = match &self.canvas.drawn {
            Some(drawn) if self.overlay => drawn.id(),
            _ => plain.id(),
        };
        let size = plain.size_vec2();
        let (_, place) = ui.allocate_space(ui.available_size());
        // A fixed id keeps the keyboard focus when a notification appears above; an automatic id changes with the
        // position.
        let response = ui.interact(place, Id::unique("picture"), Sense::click_and_drag());
        let window = response.rect;
        self.move_lens(ui, &response, size);
        let at = self.canvas.lens.rect(window, size);
        let painter = ui.painter().with_clip_rect(window);
        painter.image(texture, at, Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0)), Color32::WHITE);

        let hovered = response.hover_pos().and_then(|p| self.token_at(self.canvas.lens.point(window, size, p)));
        let token = hovered.clone().or_else(|| self.token_under_keyboard(&response));
        let name = self.session.picture.as_ref().map_or("", |shown| &shown.name);
        let words = token.as_ref().map_or_else(String::new, Token::words);
        let label = format!("Picture {name}. {words}");
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &label));
        let Some(token) = token else { return };
        let rects = self.parts(&token).map(|part| self.canvas.lens.part(window, size, part));
        let rects: Vec<Rect> = rects.collect();
        for &rect in &rects {
            painter.rect_stroke(rect, CornerRadius::ZERO, Stroke::new(3.0, Color32::BLACK), StrokeKind::Outside);
            painter.rect_stroke(rect, CornerRadius::ZERO, Stroke::new(1.5, Color32::WHITE), StrokeKind::Outside);
        }
        let at = rects.first().map_or(window.left_top(), Rect::right_bottom);
        let tooltip = Tooltip::always_open(ui.ctx().clone(), ui.layer_id(), ui.scope_id().with("token"), at);
        tooltip.show(|ui| ui.label(&words));
    }

    /// Wheel and pinch zoom, dragging moves, a double click resets. Keys: + - 0 and the arrows.
    fn move_lens(&mut self, ui: &Ui, response: &Response, size: Vec2) {
        let window = response.rect;
        if response.dragged_by(PointerButton::Primary) || response.dragged_by(PointerButton::Middle) {
            self.canvas.lens.pan(window, size, response.drag_delta());
        }
        if response.double_clicked() {
            self.canvas.lens = Default::default();
        }
        if response.clicked() {
            response.request_focus();
        }
        if let Some(pointer) = response.hover_pos() {
            let (pinch, wheel) = ui.input(|input| (input.zoom_delta(), input.smooth_scroll_delta().y));
            let factor = pinch * (wheel / 240.0).exp();
            if factor != 1.0 {
                self.canvas.lens.magnify(window, size, pointer, factor);
            }
        }
        if !response.has_focus() {
            return;
        }
        let arrows = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        ui.memory_mut(|memory| memory.set_focus_lock_filter(response.id, arrows));
        let keys: Vec<Key> = ui.input(|input| {
            let pressed = |event: &Input| match event {
                Input::Key { key, pressed: true, .. } => Some(*key),
                _ => None,
            };
            input.events.iter().filter_map(pressed).collect()
        });
        for key in keys {
            match key {
                Key::Plus | Key::Equals => self.canvas.lens.magnify(window, size, window.center(), 1.25),
                Key::Minus => self.canvas.lens.magnify(window, size, window.center(), 0.8),
                Key::Num0 => self.canvas.lens = Default::default(),
                Key::ArrowLeft => self.canvas.lens.pan(window, size, vec2(STEP, 0.0)),
                Key::ArrowRight => self.canvas.lens.pan(window, size, vec2(-STEP, 0.0)),
                Key::ArrowUp => self.canvas.lens.pan(window, size, vec2(0.0, STEP)),
                Key::ArrowDown => self.canvas.lens.pan(window, size, vec2(0.0, -STEP)),
                Key::Period | Key::Comma => self.step_token(key == Key::Comma),
                _ => {}
            }
        }
    }

    /// The picture's size in pixels, (width, height).
    fn pixels(&self) -> Option<(usize, usize)> {
        self.session.picture.as_ref().map(|shown| (shown.picture.width(), shown.picture.height()))
    }

    fn token_at(&self, point: Vec2) -> Option<Token> {
        let (width, height) = self.pixels()?;
        Token::under(self.canvas.looked.as_ref()?, (width, height), [point.x * width as f32, point.y * height as f32])
    }

    /// The keys full stop and comma select the next and the previous token.
    fn step_token(&mut self, back: bool) {
        let (Some(looked), Some(size)) = (&self.canvas.looked, self.pixels()) else { return };
        self.canvas.token = Token::next(looked, size, self.canvas.token, back).map(|token| token.index);
    }

    fn token_under_keyboard(&self, response: &Response) -> Option<Token> {
        let index = self.canvas.token.filter(|_| response.has_focus())?;
        Token::at(self.canvas.looked.as_ref()?, self.pixels()?, index)
    }

    /// A token's rectangles: left, top, right, bottom, each 0 to 1 along the picture's side.
    fn parts(&self, token: &Token) -> impl Iterator<Item = [f32; 4]> {
        let sides = self.pixels().map(|(width, height)| [width as f32, height as f32]);
        let part = move |[width, height]: [f32; 2]| {
            token
                .pixels
                .iter()
                .map(move |[left, top, right, bottom]| [left / width, top / height, right / width, bottom / height])
        };
        sides.into_iter().flat_map(part)
    }
}
