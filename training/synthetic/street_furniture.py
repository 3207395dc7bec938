"""Street furniture: lamp posts, traffic lights, signs, bollards, railings and garden fences."""

from math import cos, pi, sin

from training.synthetic.canvas import Canvas, Color, Label, mix
from training.synthetic.people_and_trees import METAL, Cutout


def lamp_post(canvas: Canvas, x: float, z: float, inward: int) -> None:
    """A tapered mast of 7.5 m with an arm over the road; `inward` is the arm's direction, -1 or +1."""
    post = Cutout(canvas, x, z, Label.POLE)
    post.bar((0, 0), (0, 1.2), (0.1, 0.09), METAL)
    post.bar((0, 1.2), (0, 7.4), (0.065, 0.045), METAL)
    post.bar((0, 7.35), (inward * 1.3, 7.75), (0.045, 0.04), METAL)
    post.poly([(inward * 1.1, 7.66), (inward * 1.9, 7.86), (inward * 1.9, 7.98), (inward * 1.1, 7.84)], (150, 152, 150))
    _gleam(post, 7.3)


def _gleam(post: Cutout, top: float) -> None:
    """A bright line on the sunlit side, so that a bar looks like a cylinder."""
    side = 0.035 if post.canvas.light.towards[0] > 0 else -0.035
    post.bar((side, 0.1), (side * 0.8, top), (0.014, 0.01), mix(METAL, (255, 255, 250), 0.45))


def traffic_light(canvas: Canvas, x: float, z: float, go: bool) -> None:
    """A head of three lamps on a black mast."""
    mast = Cutout(canvas, x, z, Label.POLE)
    mast.bar((0, 0), (0, 3.4), (0.06, 0.055), (52, 54, 56))
    head = Cutout(canvas, x, z, Label.SIGN)
    head.poly([(-0.27, 2.3), (0.27, 2.3), (0.27, 3.6), (-0.27, 3.6)], (238, 238, 232))
    head.poly([(-0.22, 2.35), (0.22, 2.35), (0.22, 3.55), (-0.22, 3.55)], (24, 25, 27))
    red: Color = (255, 62, 48)
    for y, color, on in ((3.34, red, not go), (2.95, (255, 180, 60), False), (2.56, (70, 255, 150), go)):
        head.disc((0, y), (0.14, 0.14), color if on else mix(color, (20, 20, 20), 0.82), glow=on)
        if on:
            head.disc((0, y), (0.07, 0.07), mix(color, (255, 255, 255), 0.6), glow=True)


def sign(canvas: Canvas, x: float, z: float, kind: int) -> None:
    """A sign on a post: 0 a speed limit, 1 a warning triangle, 2 a blue panel, 3 no waiting."""
    post = Cutout(canvas, x, z, Label.POLE)
    post.bar((0, 0), (0, 2.9), (0.04, 0.04), METAL)
    _gleam(post, 2.2)
    plate = Cutout(canvas, x, z, Label.SIGN)
    if kind == 1:
        for size, color in ((0.48, (196, 32, 36)), (0.33, (244, 244, 238))):
            plate.poly(
                [(size * sin(turn * 2 * pi / 3), 2.5 + size * cos(turn * 2 * pi / 3)) for turn in range(3)], color
            )
        plate.bar((0, 2.42), (0, 2.66), (0.035, 0.035), (20, 20, 20))
    elif kind == 2:
        plate.poly([(-0.42, 2.0), (0.42, 2.0), (0.42, 3.0), (-0.42, 3.0)], (242, 242, 240))
        plate.poly([(-0.38, 2.04), (0.38, 2.04), (0.38, 2.96), (-0.38, 2.96)], (30, 76, 160))
        for row, width in ((2.72, 0.26), (2.5, 0.2), (2.28, 0.24)):
            plate.bar((-width, row), (width, row), (0.04, 0.04), (240, 240, 240))
    else:
        plate.disc((0, 2.55), (0.38, 0.38), (196, 32, 36))
        plate.disc((0, 2.55), (0.28, 0.28), (244, 244, 240) if kind == 0 else (34, 70, 150))
        _inscription(plate, kind)


def _inscription(plate: Cutout, kind: int) -> None:
    if kind == 3:
        plate.bar((-0.2, 2.75), (0.2, 2.35), (0.045, 0.045), (196, 32, 36))
        return
    for y in (2.43, 2.55, 2.67):  # the digits 30
        plate.bar((-0.17, y), (-0.03, y), (0.022, 0.022), (24, 24, 24))
    plate.bar((-0.04, 2.41), (-0.04, 2.69), (0.022, 0.022), (24, 24, 24))
    plate.disc((0.11, 2.55), (0.085, 0.145), (24, 24, 24))
    plate.disc((0.11, 2.55), (0.04, 0.1), (244, 244, 240))


def bollard(canvas: Canvas, x: float, z: float) -> None:
    """Black, with a pale band."""
    post = Cutout(canvas, x, z, Label.POLE)
    post.limb((0, 0.05), (0, 0.95), (0.085, 0.075), (46, 46, 50))
    post.bar((0, 0.74), (0, 0.82), (0.08, 0.08), (214, 210, 196))


def railing(canvas: Canvas, x: float, near: float, far: float, height: float, paint: Color) -> None:
    """Bars and two rails parallel to the street; the label covers the whole area, as in CamVid."""
    project, z = canvas.camera.project, far
    canvas.fill(
        [project((x, y, at)) for at, y in ((near, 0.05), (far, 0.05), (far, height), (near, height))], None, Label.FENCE
    )
    while z >= near - 0.01:
        post = round((far - z) / 0.22) % 9 == 0
        half = 0.035 if post else 0.012
        lit = canvas.sunlight(x, z)
        canvas.face(
            [(x - half, 0, z), (x + half, 0, z), (x + half, height, z), (x - half, height, z)], paint, Label.FENCE, lit
        )
        z -= 0.22
    for y in (0.14, height - 0.06):
        canvas.face(
            [(x, y, near), (x, y, far), (x, y + 0.06, far), (x, y + 0.06, near)],
            mix(paint, (255, 255, 255), 0.1),
            Label.FENCE,
        )


def boards(canvas: Canvas, x: float, near: float, far: float, paint: Color) -> None:
    """A garden fence of boards, each with its own tone."""
    z, number = far, 0
    while z > near:
        tone = mix(paint, (60, 44, 30), 0.1 * ((number * 5) % 4))
        step = max(0.22, z * 0.012)
        canvas.face(
            [(x, 0, z - step), (x, 0, z), (x, 1.8, z), (x, 1.8, z - step)], tone, Label.FENCE, canvas.sunlight(x, z)
        )
        z, number = z - step, number + 1
    canvas.face(
        [(x, 1.74, near), (x, 1.74, far), (x, 1.84, far), (x, 1.84, near)], mix(paint, (40, 30, 20), 0.4), Label.FENCE
    )
