// The types of wxauth.js and wxauth.mjs. They need no other package.

/** What the client uses of the platform's object: `wx`, `Taro` or `uni`. */
export interface Platform {
  login(options: any): unknown
  request(options: any): unknown
  uploadFile(options: any): unknown
  downloadFile(options: any): unknown
  getStorageSync(key: string): any
  setStorageSync(key: string, data: any): unknown
  removeStorageSync(key: string): unknown
  getFileSystemManager(): any
}

export interface Settings {
  /** The address of the service, as `https://login.example.com`. Its origin gets the token. */
  baseURL: string
  /** Further origins that get the token, as `https://api.example.com`. No other origin gets it. */
  origins?: string[]
  /** Needed if the service has several mini programs. */
  appid?: string
  /** A label for the user's own list of sessions, of at most 64 characters. */
  device?: string
  /**
   * Called once when a session was ended by another login, from another device or by the operator (action `ask`).
   * From then on requests are rejected with the code of the problem, also after a restart of the mini program, until
   * a `login()` succeeds. Tell the user, and call `login()` if the user wants it.
   */
  onEnded?: (problem: Problem) => void
  /** Taro or uni. The default is the global `wx`. */
  wx?: Platform
}

/** All options of the platform's own function, without the callbacks. */
interface Call {
  /** A path below `baseURL`, or a full address. A request to an origin that gets no token is not changed. */
  url: string
  /** An `Authorization` header is replaced, unless the origin gets no token. */
  header?: Record<string, any>
  /** Milliseconds. */
  timeout?: number
  success?: never
  fail?: never
}

type Data = string | ArrayBuffer | Record<string, any>

export interface RequestOptions extends Call {
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  /** The body, or a function that returns it. The function is called each time the request is sent. */
  data?: Data | (() => Data | Promise<Data>)
  dataType?: string
  responseType?: 'text' | 'arraybuffer'
  [more: string]: any
}

export interface UploadOptions extends Call {
  filePath: string
  name: string
  formData?: Record<string, any>
  [more: string]: any
}

export interface DownloadOptions extends Call {
  filePath?: string
  [more: string]: any
}

/** The platform's answer, for every status. */
export interface Answer<Body = any> {
  statusCode: number
  data: Body
  header: Record<string, string>
  errMsg: string
}

export interface Download {
  statusCode: number
  tempFilePath: string
  filePath: string
  errMsg: string
}

/** The body of an answer with a status of 400 or more. */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  code: string
  action: 'login' | 'ask' | 'retry' | 'none'
  request_id: string
}

/** The error of a rejected promise. */
export interface WxAuthError extends Error {
  /**
   * The code of the service's problem, as `session_replaced`, or one of: `wx_failed` (the platform's function failed,
   * `message` is its errMsg), `not_understood` (the answer is not from the service), `no_phone_code` (the user gave no
   * phone number), `logged_out` (`logout()` was called during the request, or another request's login failed).
   */
  code: string
  /** The answer that the service gave to a login, or to another function than `request` and its like. */
  answer?: Answer
}

export interface Phone {
  phoneNumber: string
  purePhoneNumber: string
  countryCode: string
}

/** The query of a page, as `onLoad` gets it. */
export interface Query {
  /** What a mini-program code holds. */
  scene?: string
  /** The whole link of an ordinary QR code. */
  q?: string
  [more: string]: any
}

/** Who asks to be logged in. Show it to the user before `approve`. */
export interface Device {
  client_id: string
  client_name: string
  /** Unix seconds: when the code was asked for. */
  created_at: number
  /** Seconds until the code expires. */
  expires_in: number
  /** The network from which the code was asked for, as `203.0.113.0/24`. */
  network: string
}

export interface Client {
  /**
   * `wx.request` with the token. Resolves to the answer, whatever its status. Rejects with a WxAuthError if there is no
   * answer, if a login was needed and failed, if the session was ended (see `onEnded`), or if it would have to be sent
   * after a `logout()`.
   */
  request<Body = any>(options: RequestOptions): Promise<Answer<Body>>
  /** `wx.uploadFile` with the token. `data` is a string. WeChat does not show the headers. */
  uploadFile(options: UploadOptions): Promise<Omit<Answer<string>, 'header'>>
  /** `wx.downloadFile` with the token. */
  downloadFile(options: DownloadOptions): Promise<Download>
  /** Log in if there is no token. With `force`, replace it. Calls during a login share it. */
  login(options?: { force?: boolean }): Promise<void>
  /**
   * Forget the token and end the session. Never rejects. Resolves to true if the service says that it ended the session
   * or that there is none. Otherwise the session lasts until its idle end, but its token is gone.
   */
  logout(): Promise<boolean>
  /**
   * Ask the service about the token, log in if needed, and return the token: for `wx.connectSocket`, which takes it as a
   * header. Rejects as `request` does.
   */
  token(): Promise<string>
  /** Return the phone number for the `e.detail.code` of `<button open-type="getPhoneNumber">`. */
  phone(code: string | undefined): Promise<Phone>
  /**
   * Call `get`, as `() => wx.getWeRunData({})`, after a login if needed, and return the data that it gives, decrypted by
   * the service. Rejects with the error of `get` if the user refuses.
   */
  userData<Data = any>(get: () => PromiseLike<{ encryptedData: string; iv: string }>): Promise<Data>
  /**
   * Return a ticket for a page in a `<web-view>`. It works once, within 60 seconds. Put it into the fragment of the
   * page's address: `#ticket=…`. No server and no log gets the fragment.
   */
  ticket(): Promise<string>
  /** Return the user_code of a scanned code as `XXXX-XXXX`, or null if the query holds none. */
  scanned(query: Query): string | null
  /** Ask the service who wants to be logged in. Rejects with `not_found` if the code is unknown, used or expired. */
  device(code: string): Promise<Device>
  /** Log in the website that shows the code. Call it only after the user has seen who asks and has agreed. */
  approve(code: string): Promise<void>
  /** Refuse the login. The code cannot be used any more. */
  deny(code: string): Promise<void>
}

/** Create one client for the whole mini program, because it keeps the token and shares logins. */
export function create(settings: Settings): Client
