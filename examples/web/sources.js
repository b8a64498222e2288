// Where frames come from: an image, a video file, a camera.
//
// A source has `grab()`, which gives the newest frame as a VideoFrame or an ImageBitmap of its own
// size, `close()`, and, if it moves, the `video` element that plays it.

import { UserError } from "./bundle.js";

// the pixels as they are stored: no conversion to the colours of this screen
const RAW = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

const CAMERA_ERRORS = {
  NotAllowedError: "the camera was denied; allow it for this address in the browser's settings",
  NotFoundError: "there is no camera; connect one",
  NotReadableError: "the camera is in use by another program; close that one",
  OverconstrainedError: "the chosen camera is gone; choose another",
};

/** Open what the user chose or dropped. */
export async function openFile(file, video) {
  if (file.type.startsWith("video/")) return openVideo(file, video);
  const grab = () => createImageBitmap(file, RAW);
  try {
    (await grab()).close();
  } catch {
    throw new UserError(`${file.name} is no image or video that this browser can show`);
  }
  return { name: file.name, kind: "image", grab, close() {} };
}

async function openVideo(file, video) {
  const address = URL.createObjectURL(file);
  const close = () => {
    video.pause();
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(address);
  };
  video.src = address;
  try {
    await firstFrame(video);
  } catch {
    close();
    throw new UserError(`${file.name} is no video that this browser can play; try WebM or MP4`);
  }
  return { name: file.name, kind: "video", video, grab: () => grabVideo(video), close };
}

/** Open a camera; without an identity, the browser's own choice. */
export async function openCamera(video, deviceId, onLost) {
  if (!navigator.mediaDevices) {
    throw new UserError("this address is not secure, so that no camera is given; use 127.0.0.1");
  }
  const wanted = { width: { ideal: 1920 }, height: { ideal: 1080 } };
  if (deviceId) wanted.deviceId = { exact: deviceId };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    throw new UserError(CAMERA_ERRORS[error.name] ?? `the camera does not start (${error.name})`);
  }
  const [track] = stream.getVideoTracks();
  const close = () => {
    track.onended = null;
    for (const one of stream.getTracks()) one.stop();
    video.srcObject = null;
  };
  track.onended = () => onLost(new UserError("the camera was disconnected; start it again"));
  video.srcObject = stream;
  try {
    await firstFrame(video);
  } catch {
    close();
    throw new UserError("the camera gives no picture; connect it again");
  }
  const { deviceId: opened } = track.getSettings();
  const grab = () => grabVideo(video);
  return { name: track.label, kind: "camera", deviceId: opened, video, grab, close };
}

/** What the video shows now; a VideoFrame refers to the decoder's picture and costs nothing. */
async function grabVideo(video) {
  return "VideoFrame" in globalThis ? new VideoFrame(video) : createImageBitmap(video);
}

/** The cameras of this machine, named once one was allowed. */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((device) => device.kind === "videoinput");
}

function firstFrame(video) {
  return new Promise((resolve, reject) => {
    const done = (settle) => () => {
      video.onloadeddata = video.onerror = null;
      if (video.videoWidth) settle();
      else reject(new Error("no picture"));
    };
    video.onloadeddata = done(resolve);
    video.onerror = done(reject);
  });
}
