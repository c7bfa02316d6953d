/**
 * The client class of the guide this project began with (its section 4), retyped: the same names, the same requests,
 * the same handling of what comes back. The three lines marked so are changed, nothing else. It knows nothing of this
 * package.
 */

export interface CreateRoomOptions {
  name?: string;
  description?: string;
}

export interface CreateRoomResponse {
  success: boolean;
  room?: { id: string; name: string };
  error?: string;
}

export class HMSServiceClass {
  private baseUrl: string = `${process.env["GATEWAY_URL"]}/api`; // changed

  async createRoom(options?: CreateRoomOptions): Promise<CreateRoomResponse> {
    try {
      const answer = await fetch(`${this.baseUrl}/rooms`, {
        method: "POST",
        headers: {
          Authorization: `Bearer ${process.env["LOGIN_TOKEN"]}`, // changed
          "Content-Type": "application/json",
        },
        body: JSON.stringify(options),
      });
      return await answer.json();
    } catch (error) {
      return { success: false, error: error.message };
    }
  }

  async getAuthToken(roomId: string, role: string): Promise<string> {
    const answer = await fetch(`${this.baseUrl}/rooms/${roomId}/token`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${process.env["LOGIN_TOKEN"]}`, // changed
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ role, userId: `user_${Date.now()}` }),
    });
    const { token } = await answer.json();
    return token;
  }
}
