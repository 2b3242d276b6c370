// The types of wxauth.js. They need no other package; tests/miniprogram holds them against miniprogram-api-typings.

/** What is asked of the platform's object: `wx`, `Taro` or `uni` is one. */
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
  /** Where the service is, as `https://login.example.com`. Its origin is the only one that is sent the token. */
  baseURL: string
  /** Needed where the service has several mini programs. */
  appid?: string
  /** A label for the user's own list of sessions, of at most 64 characters. */
  device?: string
  /** Taro or uni; without it the global `wx`. */
  wx?: Platform
}

/** All that the platform's own call takes, but for the callbacks. */
interface Call {
  /** A path below `baseURL`, or an address. One of another origin is passed on as it is: no token, no repeat. */
  url: string
  header?: Record<string, any>
  /** Milliseconds. */
  timeout?: number
  success?: never
  fail?: never
}

type Data = string | ArrayBuffer | Record<string, any>

export interface RequestOptions extends Call {
  method?: 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'
  /** The body, or a function that is called for it each time that the request is sent. */
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

/** As the platform's `success` gets it; it comes for every status. */
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

/** The body of an answer of 400 and more. */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  code: string
  action: 'login' | 'retry' | 'none'
  request_id: string
}

/** What a promise is rejected with. */
export interface WxAuthError extends Error {
  /**
   * The code of the service's problem, or one of: `wx_failed` (the platform's call failed, `message` has its errMsg),
   * `not_understood` (the answer is not the service's), `no_phone_code` (the user gave no phone number).
   */
  code: string
  /** The answer, where there was one. */
  answer?: Answer
}

export interface Phone {
  phoneNumber: string
  purePhoneNumber: string
  countryCode: string
}

export interface Client {
  /** `wx.request` with the token. Fulfilled with the answer, whatever its status. Rejected with a WxAuthError where
   * there is no answer, or a login was needed and failed. */
  request<Body = any>(options: RequestOptions): Promise<Answer<Body>>
  /** `wx.uploadFile`, likewise; `data` is a string, and WeChat shows no header. */
  uploadFile(options: UploadOptions): Promise<Omit<Answer<string>, 'header'>>
  /** `wx.downloadFile`, likewise. */
  downloadFile(options: DownloadOptions): Promise<Download>
  /** Makes sure that there is a token; with `force` it gets a new one. Who asks during a login shares it. */
  login(options?: { force?: boolean }): Promise<void>
  /** Forgets the token and ends the session. Never rejected. False: the service could not be asked, so the session
   * lives on there until it idles out, with nobody who has its token. */
  logout(): Promise<boolean>
  /** The phone number for the `e.detail.code` of `<button open-type="getPhoneNumber">`. */
  phone(code: string | undefined): Promise<Phone>
  /** Calls `get` (as `() => wx.getWeRunData({})`) when a login is sure, and has the service open what it gives.
   * Where `get` is rejected, because the user keeps the data, so is this, with the same. */
  userData<Data = any>(get: () => PromiseLike<{ encryptedData: string; iv: string }>): Promise<Data>
}

/** One for the whole mini program: the token and the login under way are its own. */
export function create(settings: Settings): Client
